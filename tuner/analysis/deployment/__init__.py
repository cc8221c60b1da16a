"""Whether a configuration may be deployed: stress, idle power, headroom, the cost of the night."""
