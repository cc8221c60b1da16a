"""What the log of a vLLM says: its lines, the errors in it, and whose fault they are."""
