"""vLLM: its command, log, counters, and the limits that change while it runs."""
