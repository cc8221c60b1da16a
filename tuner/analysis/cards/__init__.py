"""Cards: what a study on several of them says of each, and of all together."""
