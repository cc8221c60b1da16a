"""Remote evaluation: the same evaluator in another process, on this host or on another node."""
