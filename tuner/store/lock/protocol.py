"""What every study lock can do."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from sqlalchemy import Engine

from tuner.errors import PreflightError


class StudyLock(Protocol):
    """The write lock of one study, held."""

    def check(self) -> None:
        """Raise `StoreAwayError` if it was lost, `OperatorNeededError` if its store was."""

    def take_again(self) -> None:
        """Take it again if it was lost.

        Raises `StoreAwayError` while that is impossible, and `OperatorNeededError` if another
        process has it now.
        """

    def fence(self, engine: Engine) -> AbstractContextManager[None]:
        """Let no transaction of that engine commit in the `with` block once the lock is lost.

        Such a commit raises `StoreAwayError`, and nothing of it is written.
        """


class HeldError(PreflightError):
    """Another process has the lock."""


def held_by(study: str, holder: str) -> HeldError:
    """Return the error for a study that another process runs."""
    return HeldError(
        f"study '{study}' is being run by {holder}; wait for it, end it, or name another study "
        "with --study"
    )
