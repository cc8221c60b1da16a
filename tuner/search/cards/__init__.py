"""Cards: one function measured on several of them."""
