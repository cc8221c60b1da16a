from __future__ import annotations

import pytest

from tuner.configuration import Configuration
from tuner.evaluation.factory import measurement_plan
from tuner.load.workload import load_workload
from tuner.spec.study import StudySpec


@pytest.mark.parametrize(
    ("slos", "window_s", "begins_s"),
    [
        (("p99_tpot_ms<=25",), 14.0, 21.0),  # whole half windows: 642 tokens take 16 s
        (("p99_tpot_ms<=25",), 60.0, 30.0),
        (("p99_ttft_ms<=500",), 14.0, 7.0),
    ],
)
def test_a_short_window_of_an_open_load_waits_until_the_server_is_full(
    slos: tuple[str, ...], window_s: float, begins_s: float
) -> None:
    spec = StudySpec(
        model="Qwen/Qwen3-8B",
        slo=slos,
        request_rate=10.0,
        trials=1,
        min_window_s=window_s,
        max_window_s=window_s,
    )
    plan = measurement_plan(spec, load_workload("chat"), Configuration()).window
    assert plan.begins_after_s == pytest.approx(begins_s, rel=0.05)


def test_a_closed_load_begins_where_it_settles() -> None:
    spec = StudySpec(model="Qwen/Qwen3-8B", slo=("p99_tpot_ms<=25",), concurrency=8, trials=1)
    assert (
        measurement_plan(spec, load_workload("chat"), Configuration()).window.begins_after_s is None
    )
