"""Forked servers: launches that find the server's modules imported already."""
