"""Comparison points: results of other tools for a study's model, kept beside its trials."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from tuner.store.faults import readable
from tuner.store.repeats import study_of
from tuner.store.rows import ComparisonPoint
from tuner.store.schema import ComparisonRecord


class ComparisonTable:
    """The comparison points of every study in a store; `session` opens one transaction."""

    def __init__(self, session: Callable[[], AbstractContextManager[Session]]) -> None:
        self._session = session

    def add(self, study: str, point: ComparisonPoint) -> None:
        """Add a point, or replace that of the same file. Raises `UsageError` for no such study."""
        values = {field.name: getattr(point, field.name) for field in fields(point)}
        values["metrics"] = dict(point.metrics)
        with self._session() as session:
            study_id = study_of(session, study).id
            session.execute(
                delete(ComparisonRecord).where(
                    ComparisonRecord.study_id == study_id, ComparisonRecord.sha256 == point.sha256
                )
            )
            session.add(ComparisonRecord(study_id=study_id, **values))

    def of(self, study: str) -> list[ComparisonPoint]:
        """Return the points of a study in the order in which they were imported."""
        with self._session() as session, readable(f"a comparison point of study '{study}'"):
            query = select(ComparisonRecord).where(
                ComparisonRecord.study_id == study_of(session, study).id
            )
            records = session.scalars(query.order_by(ComparisonRecord.id)).all()
            names = [field.name for field in fields(ComparisonPoint)]
            return [ComparisonPoint(**{n: getattr(r, n) for n in names}) for r in records]
