"""The importer protocol: how the trace of another project becomes rows of our own.

A new format is one module here that ends in `IMPORTER`, one name in `registry.TraceFormat`, and one
sample in `tests/helpers/trace_samples.py`, which `tests/load/importers/test_importer.py` puts to
the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from tuner.load.importers.reading import Reading
from tuner.load.traces.trace_file import TraceRow


class Importer(Protocol):
    """One format of traces.

    `caveat` says what of the workload is not from the file, for its `sources`; empty if nothing.
    `block_tokens` is the length of the blocks that `TraceRow.hash_ids` name; None without ids.
    """

    @property
    def caveat(self) -> str:
        """What is estimated, as a half sentence; empty if nothing is."""

    @property
    def block_tokens(self) -> int | None:
        """The tokens of a block of the prompt that has a hash id."""

    @property
    def has_time_unit(self) -> bool:
        """Whether its times are numbers, whose unit `Reading.time_unit` may tell."""

    def rows(self, path: Path, reading: Reading) -> Iterator[TraceRow]:
        """Yield the requests in the order of the file, whose times count from the first row.

        Reads as a stream, in the memory of one row, and gives the same rows every time. What is in
        the file is data and never evaluated. A row that is malformed, or of which the format does
        not tell how much work it is, raises `UsageError` that names its line (or item) and what was
        expected; `reading` may ask to leave such rows out, and is told what the rows do not say. A
        file without requests gives no rows, or raises.
        """
