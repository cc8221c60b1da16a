from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from helpers.records import repeat_row

from tuner.analysis.report_data.report_data import ReportData, read_report_data
from tuner.analysis.report_data.timeline import event_hours, growth, spans
from tuner.records import Timing
from tuner.store import RepeatKind, Store, StudyIdentity


def with_times(report: ReportData, launch_s: float | None = 60.0) -> ReportData:
    took = Timing(360.0, launch_s)
    return replace(report, searched=tuple(replace(t, timing=took) for t in report.searched))


@pytest.fixture
def virtual(
    empty: Store, identity: StudyIdentity, fill: Callable[[Store, StudyIdentity], None]
) -> ReportData:
    fill(empty, replace(identity, evaluation="virtual"))
    return with_times(read_report_data(empty, "night"))


def test_virtual_evaluations_follow_one_another(virtual: ReportData) -> None:
    found = spans(virtual)
    assert [s.trial for s in found] == list(range(7))
    assert [s.start_h for s in found] == pytest.approx([0.1 * k for k in range(7)])
    assert found[0].launch_h == pytest.approx(1 / 60)
    assert [s.is_measured for s in found] == [True] * 5 + [False] * 2


def test_live_evaluations_stand_where_they_began(store: Store) -> None:
    report = with_times(read_report_data(store, "night"), launch_s=None)
    found = spans(report)
    began = report.study.created_at
    hours = [(t.started_at - began).total_seconds() / 3600 for t in report.searched]
    assert [s.start_h for s in found] == pytest.approx(hours)
    assert all(s.launch_h is None for s in found)
    at_h = (report.events[0].at - began).total_seconds() / 3600
    assert event_hours(report, found) == [pytest.approx(at_h)]


def test_an_event_of_a_virtual_night_follows_the_trial_before_it(virtual: ReportData) -> None:
    assert event_hours(virtual, spans(virtual)) == [pytest.approx(0.7)]


def test_repeats_have_lanes_of_their_own(virtual: ReportData) -> None:
    trial = virtual.searched[1]
    assert trial.measurement is not None
    repeats = tuple(
        repeat_row(
            n,
            1,
            trial.measurement,
            kind,
            started_at=virtual.searched[-1].started_at,
            timing=Timing(36.0, 3.6),
        )
        for n, kind in enumerate(RepeatKind)
    )
    lanes = [s.lane for s in spans(replace(virtual, repeats=repeats))][-2:]
    assert lanes == ["default again", "confirmation"]


def test_the_front_only_grows_and_ends_whole(virtual: ReportData) -> None:
    found = growth(virtual, spans(virtual))
    shares = [g.hypervolume_share for g in found]
    assert shares == sorted(shares)
    assert 0.0 < shares[0] < shares[1] < 1.0
    assert shares[-1] == pytest.approx(1.0)
    assert [g.least_energy_j for g in found] == [0.4, 0.3, 0.25, 0.25, 0.25, 0.25, 0.25]


def test_nothing_grows_where_nothing_met_the_slo(virtual: ReportData) -> None:
    nothing = replace(virtual, searched=virtual.searched[5:])
    assert growth(nothing, spans(nothing)) == []
