"""Care of a store: backups, checks, the file system below it."""
