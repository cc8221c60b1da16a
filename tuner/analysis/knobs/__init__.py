"""Knobs: what each of a configuration's does, and which can go back to the baseline's value."""
