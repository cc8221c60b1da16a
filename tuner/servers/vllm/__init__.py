"""vLLM as a server: command, flags, HTTP API, counters, log, and live limits."""
