"""The guardian: a process that outlives the tuner and cleans up behind it."""
