"""Workload power profiles of NVIDIA GPUs, apart from the limits that every GPU has."""
