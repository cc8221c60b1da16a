"""Files that only this user may change: checked paths, private folders and files."""
