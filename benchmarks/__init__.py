"""Measurements, as ratios to a bound taken in the same run: `make bench`."""
