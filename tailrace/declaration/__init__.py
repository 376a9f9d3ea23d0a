"""The declaration: what a user writes. Pure; imports neither numpy nor torch."""
