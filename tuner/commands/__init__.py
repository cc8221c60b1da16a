"""Command-line commands, one module per subject; they call the public API."""
