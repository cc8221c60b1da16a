"""The streaming HTTP client: sends on schedule, times every token."""
