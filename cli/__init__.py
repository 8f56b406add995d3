"""The command line: one module per verb; data to stdout, talk to stderr."""
