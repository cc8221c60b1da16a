"""Finds the vLLM configurations that use the least energy while meeting a latency SLO."""

DEFAULT_STORE = "results/tuner.db"
