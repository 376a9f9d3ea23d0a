"""Base of Tailrace: the log, its records, the label join and the loop that feeds a step. Imports no torch."""
