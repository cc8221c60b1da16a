"""Traces: the file of our own form, and requests read from it."""
