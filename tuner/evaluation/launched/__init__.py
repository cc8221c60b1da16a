"""Evaluation on a server that this run launches, and keeps warm where it can."""
