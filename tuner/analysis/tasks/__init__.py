"""Task energy: energy per request of each task, against chat and an estimate from FLOPs."""
