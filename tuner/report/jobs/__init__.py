"""A study as a job of a cluster: what starts it, ends it in time, and goes on with it."""
