"""Tables to disk and back, coverage, quotas, runs; knows no vendor."""
