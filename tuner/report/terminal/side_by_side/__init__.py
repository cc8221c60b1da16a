"""Studies side by side in a terminal."""
