"""Error tree: each error has one sentence for the user and an exit code."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST_NAME = 80
_LONGEST_LIST = 1500


class TunerError(Exception):
    """Base of every error that is shown to the user as one sentence."""

    exit_code = 1


class UsageError(TunerError):
    """The input is invalid: a typo, an unknown name, a value out of range."""

    exit_code = 2


class PreflightError(TunerError):
    """This machine cannot do it in its present state; nothing was started."""

    exit_code = 3


class NoFeasibleConfigurationError(TunerError):
    """Everything ran, and nothing met the SLO."""

    exit_code = 4


class OperatorNeededError(TunerError):
    """A person must act: continuing would lose data or harm the machine."""

    exit_code = 5


class DoubtfulRequestError(OperatorNeededError):
    """The baseline's measurement speaks against the request; nothing was searched yet."""


class InterruptedBySignalError(Exception):
    """A signal ended the work after everything was restored; `exit_code` is 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def unknown_name(what: str, found: str, allowed: Iterable[str]) -> str:
    """Return the message that `found` is not a `what`, with the nearest or all allowed names."""
    names, asked = sorted(allowed), _shortened(found)
    close = get_close_matches(found, names, n=2, cutoff=0.6)
    if close:
        near = " or ".join(repr(_shortened(c)) for c in close)
        return f"unknown {what} '{asked}'; did you mean {near}?"
    shown = ""
    for n, name in enumerate(map(_shortened, names)):
        if len(shown) > _LONGEST_LIST:
            return f"unknown {what} '{asked}'; allowed: {shown} and {len(names) - n} more"
        shown += f", {name}" if shown else name
    return f"unknown {what} '{asked}'; allowed: {shown}"


def _shortened(name: str) -> str:
    """Return a name that fits a line: those in a file or a store may have any length."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
