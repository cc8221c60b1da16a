"""Statistics of repeats: Student's t, and the comparison of a configuration with the baseline."""
