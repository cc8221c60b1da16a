"""Study files: what a study read at its start, kept so that the store alone is enough to resume."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from tuner.store.faults import readable
from tuner.store.repeats import study_of
from tuner.store.schema import StudyFileRecord

MOST_BYTES = 512 * 2**20  # of one file: both databases refuse a value of a gigabyte
_FAST = 1  # level of compression: a trace of 100 MB takes two seconds


@dataclass(frozen=True, slots=True)
class StudyFile:
    """A file: what it is for the study (`workload`, `trace`, ...), its name and its content."""

    role: str
    name: str
    content: bytes


def records_of(files: Iterable[StudyFile]) -> list[StudyFileRecord]:
    """Return the rows of files; the caller adds them with their study, in one transaction."""
    return [
        StudyFileRecord(
            role=file.role,
            name=file.name,
            sha256=hashlib.sha256(file.content).hexdigest(),
            compressed=zlib.compress(file.content, _FAST),
        )
        for file in files
    ]


class StudyFileTable:
    """The files of every study in a store; `session` opens one transaction."""

    def __init__(self, session: Callable[[], AbstractContextManager[Session]]) -> None:
        self._session = session

    def of(self, study: str) -> dict[str, StudyFile]:
        """Return a study's files by role; none in a store of an older tuner.

        Raises `OperatorNeededError` for one whose content is not what was written.
        """
        with self._session() as session, readable(f"a file of study '{study}'"):
            query = select(StudyFileRecord).where(
                StudyFileRecord.study_id == study_of(session, study).id
            )
            return {r.role: _file(r) for r in session.scalars(query.order_by(StudyFileRecord.id))}


def _file(record: StudyFileRecord) -> StudyFile:
    unpacking = zlib.decompressobj()
    try:
        content = unpacking.decompress(record.compressed, MOST_BYTES)
    except zlib.error as error:
        raise ValueError(f"{record.name}: {error}") from None
    if unpacking.unconsumed_tail or hashlib.sha256(content).hexdigest() != record.sha256:
        raise ValueError(f"{record.name} is not what was written")
    return StudyFile(record.role, record.name, content)
