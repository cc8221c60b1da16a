"""Energy and power of the server's GPUs: real ones through NVML, and stand-ins in software."""
