"""The read-step-write-commit loop that drives every role."""
