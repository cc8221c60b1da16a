"""Timeline of a study: when each evaluation ran, and how the front's hypervolume grew."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import merge

import numpy as np

from tuner.analysis.monotonic_times import steady_starts
from tuner.analysis.outcomes import energy_j, feasible
from tuner.analysis.report_data.report_data import ReportData
from tuner.pareto import hypervolume, reference_point
from tuner.spec.objective import Objective, costs
from tuner.store.rows import RepeatKind, RepeatRow, TrialRow

_MARGIN_SHARE = 0.05  # of the objectives' range, in logs
_LEAST_MARGIN = 5e-8


@dataclass(frozen=True, slots=True)
class Span:
    """One evaluation. Times are hours since the study began, virtual on the emulator.

    `launch_h` is the launch at its start; None if there was none or it is unknown.
    """

    lane: str
    trial: int
    start_h: float
    length_h: float
    launch_h: float | None
    is_measured: bool
    reason: str | None
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Growth:
    """The quality of the search after each of its evaluations.

    `hypervolume_share` is the share of the final hypervolume, in log space. `least_energy_j` is the
    least energy of the trials that met the SLO so far, None before the first.
    """

    end_h: float
    trial: int
    hypervolume_share: float
    least_energy_j: float | None


def spans(report: ReportData) -> list[Span]:
    """Return every evaluation of the study in the order of execution."""
    lists: tuple[Sequence[TrialRow | RepeatRow], ...] = (report.searched, report.repeats)
    evaluations = list(merge(*lists, key=lambda row: row.started_at))
    is_virtual = report.study.evaluation == "virtual"
    found, virtual_h = [], 0.0
    for row, begun in zip(evaluations, steady_starts(evaluations), strict=True):
        length_h = _length_h(row)
        if length_h is None:
            continue
        real_h = (begun - report.study.created_at).total_seconds() / 3600.0
        start_h = virtual_h if is_virtual else real_h
        virtual_h += length_h
        launch_s = None if row.timing is None else row.timing.launch_s
        found.append(
            Span(
                lane=_lane(row),
                trial=row.trial if isinstance(row, RepeatRow) else row.number,
                start_h=start_h,
                length_h=length_h,
                launch_h=None if launch_s is None else launch_s / 3600.0,
                is_measured=row.measurement is not None,
                reason=None if row.failure is None else row.failure.reason,
                started_at=row.started_at,
            )
        )
    return found


def event_hours(report: ReportData, timeline: Sequence[Span]) -> list[float]:
    """Return the time of each event on the timeline, h."""
    if report.study.evaluation != "virtual":
        began = report.study.created_at
        return [(e.at - began).total_seconds() / 3600.0 for e in report.events]
    starts = [span.started_at for span in timeline]
    found = []
    for event in report.events:
        before = bisect_right(starts, event.at) - 1
        at = timeline[before] if before >= 0 else None
        found.append(0.0 if at is None else at.start_h + at.length_h)
    return found


def growth(report: ReportData, timeline: Sequence[Span]) -> list[Growth]:
    """Return how the front of the search grew, one point per evaluation of the search."""
    ends = {s.trial: s.start_h + s.length_h for s in timeline if s.lane == "search"}
    objectives = tuple(Objective.parse(text) for text in report.study.objectives)
    points: dict[int, tuple[float, ...]] = {}
    energies: dict[int, float] = {}
    for trial in feasible(report.searched, report.confirmed.slos):
        assert trial.measurement is not None  # a feasible trial was measured
        cost = costs(objectives, trial.measurement.metrics)
        if cost is not None:
            points[trial.number] = cost
        ours_j = energy_j(trial)
        if ours_j is not None:
            energies[trial.number] = ours_j
    if not points:
        return []
    return _grow(sorted(ends.items(), key=lambda end: end[1]), points, energies)


def _grow(
    ends: Sequence[tuple[int, float]],
    points: dict[int, tuple[float, ...]],
    energies: dict[int, float],
) -> list[Growth]:
    table = np.array(list(points.values()))
    reference = reference_point(table, extent_share=_MARGIN_SHARE, least_margin=_LEAST_MARGIN)
    whole = hypervolume(table, reference)
    seen, now, least = np.empty((0, table.shape[1])), 0.0, None
    found = []
    for number, end_h in ends:
        point = points.get(number)
        if point is not None and not (seen <= np.array(point)).all(axis=1).any():
            seen = np.vstack([seen, point])
            now = hypervolume(seen, reference)
        energy_j = energies.get(number)
        if energy_j is not None:
            least = energy_j if least is None else min(least, energy_j)
        found.append(Growth(end_h, number, now / whole, least))
    return found


def _lane(row: TrialRow | RepeatRow) -> str:
    if isinstance(row, TrialRow):
        return "search"
    return "confirmation" if row.kind is RepeatKind.CONFIRMATION else "default again"


def _length_h(row: TrialRow | RepeatRow) -> float | None:
    """Return the duration; None if unknown, as for a running evaluation."""
    if row.timing is not None:
        return row.timing.elapsed_s / 3600.0
    if row.ended_at is None:
        return None
    return (row.ended_at - row.started_at).total_seconds() / 3600.0
