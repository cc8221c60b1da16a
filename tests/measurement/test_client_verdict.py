"""When the client itself spoils what it measures."""

import dataclasses

import numpy as np
import pytest

from tuner.load.client.client_watch import DriveReport
from tuner.measurement.client_verdict import judge_client, too_few_requests
from tuner.measurement.precision import Precision
from tuner.measurement.steady_window import WindowPlan
from tuner.records import RequestRecord, RequestState


def record(
    number: int = 0, ttft_s: float = 0.2, gap_s: float = 0.02, tokens: int = 41
) -> RequestRecord:
    scheduled_s = 0.1 * number
    times_s = scheduled_s + ttft_s + gap_s * np.arange(tokens)
    return RequestRecord(
        number, 10, tokens, scheduled_s, scheduled_s, times_s, float(times_s[-1]), RequestState.DONE
    )


def report(
    lag_ms: float | None, late_ms: float | None = None, *records: RequestRecord
) -> DriveReport:
    return DriveReport(records or (record(),), lag_ms, late_ms)


@pytest.mark.parametrize(
    ("found", "busy", "verdict"),
    [
        (report(9.0), 0.95, "fine"),  # less than 5 % of 200 ms
        (report(30.0), 0.3, "warning"),
        (report(30.0), None, "warning"),
        (report(30.0), 0.85, "invalid"),
        (report(300.0), 0.1, "invalid"),  # more than a quarter of the second a request takes
        (report(None, 9.0), 0.95, "fine"),
        (report(None, 30.0), 0.3, "warning"),
        (report(1.0, 400.0), 0.3, "invalid"),
        (report(None), 0.99, "fine"),
        (report(6.0, None, record(ttft_s=0.02)), 0.9, "invalid"),
        (report(4.9, None, record(ttft_s=0.02)), 0.9, "fine"),
        (report(12.0, None, record(tokens=6)), 0.9, "invalid"),  # five gaps of 20 ms
        (report(12.0, None, record(tokens=1)), 0.9, "invalid"),
    ],
)
def test_a_client_is_judged_by_what_it_measured(
    found: DriveReport, busy: float | None, verdict: str
) -> None:
    judged = judge_client(found, busy, 10.0)
    assert (judged.invalid is not None) == (verdict == "invalid")
    assert (judged.warning is not None) == (verdict == "warning")


def test_what_is_said_names_the_figures_and_what_to_do() -> None:
    invalid = judge_client(report(61.25, 70.0), 0.93, 10.0).invalid
    assert invalid is not None
    for part in ("61.2 ms at p99", "70.0 ms late", "93 %", "1000 ms", "lower the load", "core"):
        assert part in invalid
    warning = judge_client(report(61.25), 0.2, 10.0).warning
    assert warning is not None and "61.2 ms" in warning


def test_without_an_answer_nothing_is_said_of_the_client() -> None:
    judged = judge_client(DriveReport((), 500.0, 500.0), 1.0, 1.0)
    assert (judged.invalid, judged.warning) == (None, None)


def test_a_client_that_was_away_for_much_of_a_window_proves_nothing() -> None:
    """One window of 27 on a starved machine was told as the configuration's."""
    under_way = dataclasses.replace(record(), state=RequestState.CUT)
    starved = DriveReport((under_way,), 90.0, 10.0)
    invalid = judge_client(starved, 0.1, 0.3).invalid
    assert invalid is not None and "no request was answered in the window of 0.3 s" in invalid
    assert "90 ms" in invalid
    assert judge_client(starved, 0.1, 10.0).invalid is None  # it was there
    assert judge_client(starved, 0.1, None).invalid is None


def test_how_many_requests_are_needed_is_said() -> None:
    records = [record(i) for i in range(10)]  # sent over 0.9 s, the last ends at 1.9 s
    text = too_few_requests(records, WindowPlan(window_s=60.0, warmup_limit_s=30.0))
    assert "ran out after 10" in text
    assert "need 474" in text  # 10 / 1.9 s x 90 s
    assert "longer list" in too_few_requests([], WindowPlan())


def test_a_load_measured_on_one_stretch_needs_requests_until_its_end() -> None:
    records = [record(i) for i in range(10)]
    plan = WindowPlan(warmup_limit_s=30.0, precision=Precision(max_window_s=100.0))
    text = too_few_requests(records, plan.on_one_stretch())
    assert "up to 50 s and a window of 100 s need 790" in text  # 10 / 1.9 s x 150 s
    assert "--max-window-s" in text
    assert "up to 30 s and a window of 20 s need 264" in too_few_requests(records, plan)
