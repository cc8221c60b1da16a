"""Leases: what was found on a GPU is on the disk before anything is changed, and is put back."""
