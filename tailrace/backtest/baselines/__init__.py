"""Baselines of a backtest: reference learners that get the same delayed labels in the same order as the policies."""
