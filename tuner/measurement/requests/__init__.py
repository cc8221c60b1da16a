"""What is counted of the requests of a window: their latencies, and what was made."""
