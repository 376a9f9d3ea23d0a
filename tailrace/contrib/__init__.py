"""Integrations with other stream processors."""
