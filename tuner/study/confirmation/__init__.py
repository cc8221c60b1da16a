"""The confirmation: the front measured again, on launches of its own."""
