"""Notifications: a webhook or a command hears how a night ended."""
