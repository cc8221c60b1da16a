"""Workloads, and the client that offers them to a server and records what it sees."""
