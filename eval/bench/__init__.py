"""Benchmarks: programs that print a figure, or a ratio to a baseline of the same run."""
