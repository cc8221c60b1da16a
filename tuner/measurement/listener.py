"""Listener to one load: the base of `tuner.study.listener.Listener`, and all that a load needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tuner.records import LoadSnapshot


class LoadListener(Protocol):
    """Follows one load, and receives notes for the user.

    A listener only shows: nothing that it does changes a measurement, and an error of it ends the
    run.
    """

    def load_sampled(self, snapshot: LoadSnapshot) -> None:
        """Take the state of the load, about once a second, in a thread of its own."""

    def note(self, message: str) -> None:
        """Take a sentence that the user should read."""


class NullLoadListener:
    """Ignores everything."""

    def load_sampled(self, snapshot: LoadSnapshot) -> None:
        """Ignore it."""

    def note(self, message: str) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True)
class NoteListener:
    """Hands every note to `tell`, and does not follow the load."""

    tell: Callable[[str], object]

    def load_sampled(self, snapshot: LoadSnapshot) -> None:
        """Ignore it."""

    def note(self, message: str) -> None:
        """Hand it on."""
        self.tell(message)


NOBODY = NullLoadListener()
