"""Models: module construction, encoding of events as arrays, losses, and the default tabular network."""
