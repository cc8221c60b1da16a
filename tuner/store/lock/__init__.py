"""Study locks: one writer per study."""
