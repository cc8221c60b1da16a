"""What a run would do, said before it begins."""
