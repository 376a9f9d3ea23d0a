"""Telemetry: metrics, observers, cost and energy, Grafana dashboards, and the /metrics server."""
