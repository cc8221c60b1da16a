"""NVIDIA GPUs, read and limited through NVML in a process of its own."""
