"""Benchmarks: what Palate does in a second, beside what others do on the same machine."""
