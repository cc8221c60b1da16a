"""What a run would do, for a terminal."""
