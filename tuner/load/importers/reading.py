"""One reading of a trace: what the user decided about it, and what there is to say afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tuner.errors import UsageError
from tuner.load.importers.registry import TimeUnit
from tuner.load.traces.trace_file import BadRowError

_MOST_NAMED = 8


@dataclass(slots=True)
class Reading:
    """What is asked of an importer, and what it met.

    Attributes:
        time_unit: of the times; None takes the format's own, or what the times look like.
        block_tokens: of a block of the prompt that has a hash id; None likewise. Whoever reads ids
            writes here what was used.
        skip_invalid: leave out rows that are malformed, or whose work is unknown, and count them.
    """

    time_unit: TimeUnit | None = None
    block_tokens: int | None = None
    skip_invalid: bool = False
    _said: dict[str, None] = field(default_factory=dict)
    _unused: dict[str, None] = field(default_factory=dict)
    _counted: Counter[str] = field(default_factory=Counter)
    _first_skipped: str = ""
    _skipped: int = 0

    def say(self, sentence: str) -> None:
        """Keep something that whoever uses the workload has to know; once each."""
        self._said[sentence] = None

    def count(self, what: str) -> None:
        """Count something that was understood in a way that has to be known."""
        self._counted[what] += 1

    def unused(self, names: Iterable[str]) -> None:
        """Keep the names of fields that the format does not know."""
        self._unused.update(dict.fromkeys(names))

    def refuse(self, place: str, path: Path, error: BadRowError) -> None:
        """Leave out a row, or raise `UsageError` that names its place."""
        if not self.skip_invalid:
            raise UsageError(
                f"'{path}', {place}: {error}; --skip-invalid leaves out such rows"
            ) from None
        self._skipped += 1
        self._first_skipped = self._first_skipped or f"{place}: {error}"

    def notes(self) -> tuple[str, ...]:
        """Return everything that there is to say, a sentence each."""
        notes = [*self._said, *(f"{what}: {count}" for what, count in self._counted.items())]
        if self._unused:
            names = list(self._unused)
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            notes.append(f"fields that were not used: {', '.join(names[:_MOST_NAMED])}{more}")
        if self._skipped:
            notes.append(f"{self._skipped} rows were left out (the first: {self._first_skipped})")
        return tuple(notes)
