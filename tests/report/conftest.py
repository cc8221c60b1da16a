"""The fixtures of the stored study with a known answer."""

from helpers.stored_study import empty, fill, identity, store

__all__ = ["empty", "fill", "identity", "store"]
