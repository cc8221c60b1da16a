"""vLLM-Omni: images and videos behind an OpenAI-compatible API."""
