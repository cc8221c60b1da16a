"""Leases: a GPU's limits are on disk before anything changes, and are restored."""
