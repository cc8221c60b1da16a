"""Host services: processes, durable files, locks, signals."""
