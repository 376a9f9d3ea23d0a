"""The ground of Tailrace: the log, its records, the label join and the loop that feeds a step. Knows no torch."""
