"""The emulated server: the engine in real time behind vLLM's HTTP API."""
