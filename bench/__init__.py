"""Benchmarks: this server against the same stack without a log, in one run, as ratios. ``python -m bench --help``."""
