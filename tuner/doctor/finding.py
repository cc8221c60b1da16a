"""What a check found out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"  # a run is possible, but something of it will be missing or worse
    PROBLEM = "problem"  # prevents a run


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about this machine: one sentence, and the command that mends it, if there is one."""

    check: str
    level: Level
    message: str
    mend: str | None = None


def ok(check: str, message: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(check, Level.OK, message)


def warning(check: str, message: str, mend: str | None = None) -> Finding:
    """Return a finding with which a run is possible."""
    return Finding(check, Level.WARNING, message, mend)


def problem(check: str, message: str, mend: str | None = None) -> Finding:
    """Return a finding that prevents a run."""
    return Finding(check, Level.PROBLEM, message, mend)
