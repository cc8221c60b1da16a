"""The emulated engine: vLLM V1's scheduler, a roofline step time, and the power of a GPU."""
