"""What importers share: items and lines of files, turns of conversations, work that is refused."""
