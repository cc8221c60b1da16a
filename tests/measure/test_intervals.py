"""Intervals against the truth of one long emulated run, of which each window is a part."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tuner.configuration import Configuration
from tuner.emulator.hardware import load_gpu
from tuner.emulator.model import load_model
from tuner.emulator.virtual import simulate
from tuner.load.workload import load_workload
from tuner.measure.intervals import intervals, student_t_quantile
from tuner.measure.reduce import reduce_run
from tuner.measure.window import SteadyWindow, WindowPlan
from tuner.records import Load, Measurement, RawRun

WINDOW_S, WINDOWS = 20.0, 40


def cut(run: RawRun, start_s: float, end_s: float) -> RawRun:
    seen = tuple(r for r in run.requests if r.ended_s > start_s and r.scheduled_s < end_s)
    return replace(run, requests=seen, window_start_s=start_s, window_end_s=end_s)


def metrics_of(run: RawRun) -> dict[str, float]:
    result = reduce_run(run, {})
    assert isinstance(result, Measurement)
    return dict(result.metrics)


@pytest.fixture(scope="module")
def long_run() -> RawRun:
    watch = SteadyWindow(WindowPlan(window_s=WINDOW_S * WINDOWS, warmup_limit_s=60.0))
    return simulate(
        load_model("Qwen/Qwen3-8B"),
        load_gpu("H100-SXM"),
        Configuration(),
        load_workload("smoke").requests(),
        Load(request_rate=20.0),
        watch,
        seed=3,
    )


# two-sided 95 %: Student's table as in any statistics book
@pytest.mark.parametrize(
    ("freedom", "expected"), [(3, 3.18245), (5, 2.57058), (10, 2.22814), (30, 2.04227)]
)
def test_students_quantile_agrees_with_the_table(freedom: int, expected: float) -> None:
    assert student_t_quantile(0.975, freedom) == pytest.approx(expected, abs=1e-4)


def test_every_metric_lies_in_its_interval(long_run: RawRun) -> None:
    window = cut(long_run, 100.0, 130.0)
    metrics = metrics_of(window)
    found = intervals(window, {})
    assert {"energy_per_output_token_j", "p50_tpot_ms", "p99_ttft_ms"} <= found.keys()
    for name, interval in found.items():
        assert interval.low <= metrics[name] * (1 + 1e-12), name
        assert interval.high >= metrics[name] * (1 - 1e-12), name


def test_a_window_that_is_too_short_has_no_intervals(long_run: RawRun) -> None:
    assert intervals(cut(long_run, 100.0, 100.2), {}) == {}


def test_intervals_hold_the_truth_about_as_often_as_they_say(long_run: RawRun) -> None:
    truth = metrics_of(long_run)
    names = ("energy_per_output_token_j", "output_throughput_tok_s", "p50_tpot_ms", "p50_ttft_ms")
    held = dict.fromkeys(names, 0)
    for i in range(WINDOWS):
        start_s = long_run.window_start_s + i * WINDOW_S
        found = intervals(cut(long_run, start_s, start_s + WINDOW_S), {})
        for name in names:
            held[name] += found[name].low <= truth[name] <= found[name].high
    for name, count in held.items():
        assert 0.85 <= count / WINDOWS <= 1.0, (name, count)
