"""Trace formats: the registry of importers, and the units of their times. Quick to import."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING

from tuner.errors import UsageError

if TYPE_CHECKING:
    from tuner.load.importers.importer import Importer


class TraceFormat(StrEnum):
    """Formats of traces; each is a module of this package."""

    AZURE = "azure"
    BURSTGPT = "burstgpt"
    JSONL = "jsonl"
    MOONCAKE = "mooncake"
    SHAREGPT = "sharegpt"


class TimeUnit(StrEnum):
    """Units of the times in a trace."""

    S = "s"
    MS = "ms"
    US = "us"
    NS = "ns"

    @property
    def seconds(self) -> float:
        """The length of one unit."""
        return {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}[self.value]


def importer_named(name: str) -> Importer:
    """Return the importer, or raise `UsageError` that names all of them."""
    try:
        form = TraceFormat(name)
    except ValueError:
        raise UsageError(
            f"unknown format '{name}'; allowed: {', '.join(sorted(TraceFormat))}"
        ) from None
    importer: Importer = import_module(f"{__package__}.{form}").IMPORTER
    return importer
