"""Kills and faults at chosen instants, for the tests of a night."""
