"""Study files: what a study read at its start, kept so that the store alone is enough to resume."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from tuner.store.faults import readable
from tuner.store.repeats import study_id_of
from tuner.store.schema import STUDY_FILES

MOST_BYTES = 512 * 2**20  # of one file: both databases refuse a value of a gigabyte
_FAST = 1  # level of compression: a trace of 100 MB takes two seconds


@dataclass(frozen=True, slots=True)
class StudyFile:
    """A file: what it is for the study (`workload`, `trace`, ...), its name and its content."""

    role: str
    name: str
    content: bytes


def rows_of(study_id: int, files: Iterable[StudyFile]) -> list[dict[str, Any]]:
    """Return the rows of a study's files; the caller adds them with it, in one transaction."""
    return [
        {
            "study_id": study_id,
            "role": file.role,
            "name": file.name,
            "sha256": hashlib.sha256(file.content).hexdigest(),
            "compressed": zlib.compress(file.content, _FAST),
        }
        for file in files
    ]


class StudyFileTable:
    """The files of every study in a store; `session` opens one transaction."""

    def __init__(self, session: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._session = session

    def of(self, study: str) -> dict[str, StudyFile]:
        """Return a study's files by role; none in a store of an older tuner.

        Raises `OperatorNeededError` for one whose content is not what was written.
        """
        with self._session() as session, readable(f"a file of study '{study}'"):
            query = select(STUDY_FILES).where(STUDY_FILES.c.study_id == study_id_of(session, study))
            rows = session.execute(query.order_by(STUDY_FILES.c.id)).all()
            return {row.role: _file(row) for row in rows}


def _file(row: Row[Any]) -> StudyFile:
    unpacking = zlib.decompressobj()
    try:
        content = unpacking.decompress(row.compressed, MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"{row.name}: {error}") from None
    if unpacking.unconsumed_tail or hashlib.sha256(content).hexdigest() != row.sha256:
        raise ValueError(f"{row.name} is not what was written")
    return StudyFile(row.role, row.name, content)
