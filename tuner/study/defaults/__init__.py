"""Defaults of a study that depend on what it is asked."""
