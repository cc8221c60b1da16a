"""Reading the store: fronts, recommendations, tables, JSON and files. Nothing here measures."""
