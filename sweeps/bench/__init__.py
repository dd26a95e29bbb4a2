"""`ktrain bench`: the benchmarks that need a sweep, Ray or a scale."""
