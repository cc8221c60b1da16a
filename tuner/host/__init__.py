"""This machine: processes, durable files, locks, signals."""
