"""A configuration as the text that deploys it, one module per tool that reads it."""
