"""Measurements of Tailrace on the machine at hand: `python -m benchmarks`."""
