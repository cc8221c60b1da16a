"""Proposals: which configuration is evaluated next, and when to stop."""
