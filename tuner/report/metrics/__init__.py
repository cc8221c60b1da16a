"""A study as Prometheus metrics: a file for node_exporter, and a port."""
