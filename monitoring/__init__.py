"""Monitoring of a running pipeline: metrics, health, dashboards, and the live console."""
