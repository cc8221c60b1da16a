"""Can this machine do it? What is missing, and the command that mends it. Changes nothing."""
