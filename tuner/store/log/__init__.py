"""What is on disk before any database hears of it: the measurement log and the state of now."""
