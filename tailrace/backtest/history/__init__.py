"""Recorded events and labels as arrays, read in parts."""
