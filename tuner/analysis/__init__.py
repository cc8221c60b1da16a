"""What a store says, as pure functions: fronts, verdicts, the recommendation."""
