"""Vendors in, clean bar tables out; knows no folder layout."""
