"""Racing: a trial is ended once it has lost to an earlier one on the same requests."""
