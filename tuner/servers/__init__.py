"""Inference servers: the protocol, launching, stopping, and the guardian that cleans up."""
