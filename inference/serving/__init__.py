"""Serving: the live model that follows releases, and the score step."""
