"""What fails: whether a point works and keeps up, and the options that failures are due to."""
