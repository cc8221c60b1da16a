"""Comparison points: results of other tools for a study's model, kept beside its trials."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields

from sqlalchemy import Connection, delete, select

from tuner.store.faults import readable
from tuner.store.repeats import study_id_of
from tuner.store.rows import ComparisonPoint
from tuner.store.schema import COMPARISONS, add_row


class ComparisonTable:
    """The comparison points of every study in a store; `session` opens one transaction."""

    def __init__(self, session: Callable[[], AbstractContextManager[Connection]]) -> None:
        self._session = session

    def add(self, study: str, point: ComparisonPoint) -> None:
        """Add a point, or replace that of the same file. Raises `UsageError` for no such study."""
        values = {field.name: getattr(point, field.name) for field in fields(point)}
        values["metrics"] = dict(point.metrics)
        with self._session() as session:
            study_id = study_id_of(session, study)
            session.execute(
                delete(COMPARISONS).where(
                    COMPARISONS.c.study_id == study_id, COMPARISONS.c.sha256 == point.sha256
                )
            )
            add_row(session, COMPARISONS, {"study_id": study_id, **values})

    def of(self, study: str) -> list[ComparisonPoint]:
        """Return the points of a study in the order in which they were imported."""
        with self._session() as session, readable(f"a comparison point of study '{study}'"):
            query = select(COMPARISONS).where(COMPARISONS.c.study_id == study_id_of(session, study))
            rows = session.execute(query.order_by(COMPARISONS.c.id)).all()
            names = [field.name for field in fields(ComparisonPoint)]
            return [ComparisonPoint(**{n: getattr(r, n) for n in names}) for r in rows]
