"""What tasks cost: energy per request beside that of chat and an estimate from FLOPs."""
