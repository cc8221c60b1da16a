"""A search for the Pareto front of costly, noisy functions under constraints; stands alone."""
