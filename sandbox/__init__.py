"""Stand-ins of the vendors on loopback, over one deterministic market."""
