"""Windows of long answers are long, unless the user says how long."""

from __future__ import annotations

import pytest

from tuner.load.workload import load_workload
from tuner.slo import Slo
from tuner.spec.study import StudySpec
from tuner.study.defaults.windows import fitted_windows

SLO = (Slo("p99_tpot_ms", 15.0),)


def spec(**more: object) -> StudySpec:
    asked = {"model": "m", "trials": 4, "request_rate": 0.4, "slos": SLO, **more}
    return StudySpec.model_validate(asked)


def test_windows_of_reasoning_are_as_long_as_its_answers_ask() -> None:
    found = fitted_windows(spec(workload="reasoning"), load_workload("reasoning"))
    assert found.spec.max_window_s == 340.0 and found.spec.confirm_window_plan.window_s == 580.0
    assert found.reason is not None
    assert "340 s, not 180" in found.reason and "grows for 16" in found.reason
    stored = StudySpec.model_validate(found.spec.model_dump(mode="json"))
    assert fitted_windows(stored, load_workload("reasoning")).spec == stored  # when it is resumed


@pytest.mark.parametrize(
    ("workload", "more"),
    [
        ("chat", {}),
        ("reasoning", {"max_window_s": 60.0}),
        ("reasoning", {"window_s": 60.0}),
        ("reasoning", {"request_rate": None, "concurrency": 8}),
        ("reasoning", {"slos": ()}),
    ],
)
def test_others_stay(workload: str, more: dict[str, object]) -> None:
    asked = spec(workload=workload, **more)
    found = fitted_windows(asked, load_workload(workload))
    assert found.spec == asked and found.reason is None


def test_a_loose_bound_makes_no_endless_windows() -> None:
    asked = spec(workload="reasoning", slos=(Slo("p99_tpot_ms", 1000.0),))
    assert fitted_windows(asked, load_workload("reasoning")).spec.max_window_s == 600.0
