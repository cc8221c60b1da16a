"""What fails: which points work and keep up, why others do not, and where to look meanwhile."""
