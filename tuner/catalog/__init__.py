"""Catalog: GPUs and models as data with sources, and the reader of shipped and users' YAML."""
