"""How tables fit the width of a terminal."""
