"""Messages between a driver and a bench process, in both directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuner.evaluation.remote.protocol import Method, Reply
from tuner.records import LoadSnapshot


@dataclass(frozen=True, slots=True)
class Call:
    """Driver: run a method."""

    number: int
    method: Method
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Driver: cancel a call, which is answered all the same."""

    number: int


@dataclass(frozen=True, slots=True)
class Close:
    """Driver: stop everything and end."""


@dataclass(frozen=True, slots=True)
class Done:
    """Bench: a call returned."""

    number: int
    reply: Reply


@dataclass(frozen=True, slots=True)
class Failed:
    """Bench: a call raised."""

    number: int
    error: Exception


@dataclass(frozen=True, slots=True)
class Note:
    """Bench: a sentence for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Sample:
    """Bench: the state of the load."""

    snapshot: LoadSnapshot
