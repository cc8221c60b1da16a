"""An operating plan for a terminal."""
