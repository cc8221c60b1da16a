"""Operating plan: how many replicas of which configuration run in each interval of a day."""
