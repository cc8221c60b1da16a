"""A vLLM-like server and a GPU that exist only in software."""
