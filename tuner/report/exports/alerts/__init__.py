"""What watches a deployment: whether it still does what was confirmed."""
