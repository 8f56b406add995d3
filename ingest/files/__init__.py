"""Readers of files that hold bars: CSV, Parquet, feather, TDX `.day`, QuantConnect Lean zips."""
