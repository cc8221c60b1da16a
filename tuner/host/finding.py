"""Finding: one result of a check of the machine or of a store."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"  # worth knowing; needs no action
    WARNING = "warning"  # a run is possible, but its results will lack something or be worse
    PROBLEM = "problem"  # prevents a run, or the store has lost data


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding: its subject, one sentence, and the command that fixes it, if any."""

    check: str
    level: Level
    message: str
    fix: str | None = None

    @property
    def is_problem(self) -> bool:
        """Whether it must be fixed."""
        return self.level is Level.PROBLEM


def ok(check: str, message: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(check, Level.OK, message)


def note(check: str, message: str) -> Finding:
    """Return a finding that is worth knowing."""
    return Finding(check, Level.NOTE, message)


def warning(check: str, message: str, fix: str | None = None) -> Finding:
    """Return a finding that makes a run worse but does not prevent it."""
    return Finding(check, Level.WARNING, message, fix)


def problem(check: str, message: str, fix: str | None = None) -> Finding:
    """Return a finding that prevents a run."""
    return Finding(check, Level.PROBLEM, message, fix)
