"""Doctor: checks of this machine before a run, each with the command that fixes a fault."""
