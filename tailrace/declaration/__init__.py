"""Declarations: the classes that a user writes a pipeline with. Pure; imports neither numpy nor torch."""
