"""Shared by several commands: options, output, shell completion."""
