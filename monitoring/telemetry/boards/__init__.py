"""Contents of the Grafana dashboards, one module for each."""
