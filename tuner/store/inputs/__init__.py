"""What a study was started with, kept in its store."""
