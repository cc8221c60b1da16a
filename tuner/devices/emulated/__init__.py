"""GPUs that exist only in software."""
