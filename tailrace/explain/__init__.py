"""Explanations: the history of one event and the description of a release."""
