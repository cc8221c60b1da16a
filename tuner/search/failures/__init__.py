"""What fails: the probability that a point works, and the options that failures are due to."""
