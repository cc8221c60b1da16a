"""Emulated server of images and videos: what a batch costs, and how requests wait for theirs."""
