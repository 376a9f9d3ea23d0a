"""Benchmarks of Tailrace on the current machine: `python -m benchmarks`."""
