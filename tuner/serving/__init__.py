"""A vLLM server with a configuration: find it, launch it, ask it, stop it."""
