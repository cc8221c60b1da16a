"""Checks around a study: the question after its baseline, the probes of what it recommends."""
