"""Importers: traces and conversations in other projects' formats, one module a format."""
