"""Models: what a task asks for, how events become arrays, and the default tabular network."""
