"""Verbs: plan, sync, import, report; the only room that knows ingest and storage."""
