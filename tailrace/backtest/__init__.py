"""Backtests: history is replayed on a simulated clock, policies and reference learners are compared on it."""
