"""Operating points: loads as shares of the capacity, and what a start takes; measured once."""

from __future__ import annotations

from pathlib import Path

import pytest

import tuner
from tuner.analysis.deployment.switching import Switching
from tuner.errors import UsageError
from tuner.spec.study import StudySpec, spec_from
from tuner.store import ProbeKind, RepeatRow, Store


def spec(**options: object) -> StudySpec:
    asked = {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "emulate": "H100-SXM",
        "workload": "chat",
        "space": "power",
        "request_rate": 4,
        "slo": ["p99_tpot_ms<=30"],
        "trials": 2,
        "sampler": "random",
        "window_s": 10,
        "confirm_window_s": 10,
        "study": "s",
        **options,
    }
    return spec_from(None, asked)


def probes(store: str, kind: ProbeKind) -> list[RepeatRow]:
    with Store.open(store, create=False) as opened:
        return [row for row in opened.repeats.probes("s") if row.kind is kind]


def test_a_study_measures_shares_of_each_capacity_and_a_resume_adds_more(tmp_path: Path) -> None:
    store = str(tmp_path / "t.db")
    study = tuner.run(spec(loads="0.5x,1x"), store=store, yes=True)
    found = study.recommendation
    deployable = {found.best.number, *(t.number for t in found.alternatives)}
    points = probes(store, ProbeKind.LOAD)
    assert {row.trial for row in points} >= deployable
    headroom = found.checks_of(found.best).headroom
    assert headroom is not None and headroom.holds is not None
    own = [row for row in points if row.trial == found.best.number]
    rates = [row.load.request_rate for row in own if row.load is not None]
    assert rates == [pytest.approx(share * headroom.holds, rel=1e-3) for share in (0.5, 1.0)]
    powers_w = [row.measurement.metrics["mean_power_w"] for row in own if row.measurement]
    assert powers_w == sorted(powers_w)
    starts = probes(store, ProbeKind.SWITCHING)
    assert {row.trial for row in starts} == {row.trial for row in points}
    assert starts[0].measurement is not None
    costs = Switching.of(starts[0].measurement.metrics)
    assert 0.0 < costs.off_power_w < costs.start_energy_j / costs.start_s
    tuner.resume("s", store=store, loads="0.25x,0.5x,1x")
    again = probes(store, ProbeKind.LOAD)
    assert len(again) == len(points) * 3 // 2
    assert [row.number for row in again][: len(points)] == [row.number for row in points]


class Notes(tuner.NullListener):
    """Keeps what the run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def test_what_the_hours_leave_out_is_named_and_a_resume_measures_it(tmp_path: Path) -> None:
    store, notes = str(tmp_path / "t.db"), Notes()
    hours = {"trials": None, "hours": 0.4, "loads": "0.5x,1x"}
    tuner.run(spec(**hours), store=store, yes=True, listeners=[notes])
    missing = [n for n in notes.said if n.startswith("operating points are missing of ")]
    assert missing and missing[0].endswith("`tuner resume s --loads 0.5x,1x` goes on with them")
    before = len(probes(store, ProbeKind.LOAD))
    for _ in range(8):  # each has its share of the hours on top
        notes.said.clear()
        tuner.resume("s", store=store, listeners=[notes])
        if not any("missing" in note for note in notes.said):
            break
    assert not any("missing" in note for note in notes.said)
    assert len(probes(store, ProbeKind.LOAD)) > before


@pytest.mark.parametrize(
    "options",
    [
        {"loads": "much"},
        {"loads": "0.5x,2x"},
        {"loads": "0.5x", "slo": []},
        {"loads": "0.5x", "checks": False},
        {"loads": "0.5x", "request_rate": None, "concurrency": 4},
    ],
)
def test_loads_that_say_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="loads"):
        spec(**options)
