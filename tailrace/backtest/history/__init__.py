"""Recorded events and labels as arrays, read part by part."""
