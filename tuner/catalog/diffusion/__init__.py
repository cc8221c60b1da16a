"""Diffusion transformers: their shapes by name, and a GPU's constants for their work."""
