"""The label join: predictions and late labels become examples, each exactly once."""
