"""A finding: one fact that a check of the machine or of a store found out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"  # worth knowing; nothing is to be done
    WARNING = "warning"  # a run is possible, but something of it will be missing or worse
    PROBLEM = "problem"  # prevents a run, or something of a store was lost


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact: what it is of, one sentence, and the command that fixes it, if there is one."""

    check: str
    level: Level
    message: str
    fix: str | None = None

    @property
    def is_problem(self) -> bool:
        """Whether it has to be dealt with."""
        return self.level is Level.PROBLEM


def ok(check: str, message: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(check, Level.OK, message)


def note(check: str, message: str) -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(check, Level.NOTE, message)


def warning(check: str, message: str, fix: str | None = None) -> Finding:
    """Return a finding with which a run is possible."""
    return Finding(check, Level.WARNING, message, fix)


def problem(check: str, message: str, fix: str | None = None) -> Finding:
    """Return a finding that prevents a run."""
    return Finding(check, Level.PROBLEM, message, fix)
