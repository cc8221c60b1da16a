"""What a study reads from files: kept in its store, and found again when it is resumed."""
