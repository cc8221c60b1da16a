"""A released model as its files describe it: layers, matrices and their formats."""
