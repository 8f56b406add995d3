"""What users hold: the lake, its bars, its SQL."""
