"""Requests for images and videos: what a workload file says of them, and how they are drawn."""
