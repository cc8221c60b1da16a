"""Analysis of stored studies as pure functions: fronts, verdicts, the recommendation."""
