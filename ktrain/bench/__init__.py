"""Benchmarks: speed against named references in one run, with interleaved loops."""
