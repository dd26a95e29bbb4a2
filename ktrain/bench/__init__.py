"""Benchmarks: speed against named references in one run, the loops taking turns."""
