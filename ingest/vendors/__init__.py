"""One file per vendor kind."""
