"""Files beside the store: the write-ahead measurement log and the progress file."""
