"""Nouns and rules: no network, no disk, no clock of their own."""
