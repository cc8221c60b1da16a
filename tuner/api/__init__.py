"""Public API: all that the commands call; `tuner` exports what scripts and notebooks need most."""
