"""The HTML report of a study: one file that opens anywhere, without a network."""
