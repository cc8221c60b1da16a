"""Store maintenance: backups, checks, and the file system below it."""
