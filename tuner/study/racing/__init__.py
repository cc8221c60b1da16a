"""Racing in a study: the rivals from its store, and what the search is told of a lost race."""
