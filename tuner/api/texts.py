"""Texts for people: without control characters, and without secrets."""

from tuner.host.plain_text import plain_text
from tuner.host.redaction import redacted
from tuner.store.address import shown_address

__all__ = ["plain_text", "redacted", "shown_address"]
