"""Serving: the live model, which follows releases, and the score step of a worker."""
