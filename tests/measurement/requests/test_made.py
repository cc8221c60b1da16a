"""Windows of whole answers: images and videos that arrive at once, several at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.measurement.intervals import intervals
from tuner.measurement.reduce import reduce_run
from tuner.measurement.requests.made import made_per_batch, made_within, whole_answers
from tuner.metrics import Output
from tuner.records import (
    Failure,
    Measurement,
    PowerTimeline,
    RawRun,
    RequestRecord,
    RequestState,
    ServerTimeline,
    Source,
)
from tuner.store.raw import decode, encode

WATTS = 500.0


def batches(
    ends_s: list[float], size: int, units: float = 1.0, output: Output = Output.IMAGE
) -> RawRun:
    """Return a closed loop of batches that end at these times, at a constant power."""
    starts_s = [0.0, *ends_s[:-1]]
    records = [
        RequestRecord(
            request_id=size * at + place,
            prompt_tokens=20,
            output_tokens=1,
            scheduled_s=start_s,
            sent_s=start_s,
            token_times_s=np.array([end_s]),
            ended_s=end_s,
            state=RequestState.DONE,
            units=units,
        )
        for at, (start_s, end_s) in enumerate(zip(starts_s, ends_s, strict=True))
        for place in range(size)
    ]
    times_s = np.array([0.0, ends_s[-1] + 10.0])
    empty = np.empty(0)
    return RawRun(
        requests=tuple(records),
        power=PowerTimeline(times_s, np.full(2, WATTS), WATTS * times_s, Source.EMULATED),
        server=ServerTimeline(empty, empty, empty),
        window_start_s=0.3 * ends_s[-1],
        window_end_s=ends_s[-1] + 5.0,
        latency_source=Source.EMULATED,
        output=output,
    )


def test_energy_is_that_between_the_first_and_the_last_answer() -> None:
    run = batches([10.0 * n for n in range(1, 21)], 8)
    found = reduce_run(run, {"image_latency_ms": 12_000.0})
    assert isinstance(found, Measurement)
    # 8 images in 10 s at 500 W, wherever the window was cut
    assert found.metrics["energy_per_image_j"] == pytest.approx(500.0 * 10.0 / 8)
    assert found.metrics["images_per_s"] == pytest.approx(0.8)
    assert found.metrics["p99_image_latency_ms"] == pytest.approx(10_000.0)
    assert found.metrics["slo_attainment"] == 1.0
    assert (found.window_start_s, found.window_end_s) == (60.0, 200.0)
    assert not any("token" in name or "ttft" in name for name in found.metrics)


def test_a_video_counts_by_its_seconds() -> None:
    run = batches([100.0 * n for n in range(1, 21)], 2, units=5.4, output=Output.VIDEO)
    found = reduce_run(run, {})
    assert isinstance(found, Measurement)
    assert found.metrics["energy_per_video_s_j"] == pytest.approx(500.0 * 100.0 / (2 * 5.4))
    assert found.metrics["energy_per_request_j"] == pytest.approx(500.0 * 100.0 / 2)


def test_one_batch_says_nothing_of_energy() -> None:
    run = batches([20.0], 8)
    found = reduce_run(run, {})
    assert isinstance(found, Failure)
    assert "lengthen it with --window-s" in found.reason


def test_equal_batches_have_narrow_intervals() -> None:
    run = batches([10.0 * n for n in range(1, 41)], 8)
    known = intervals(run, {})
    assert known["energy_per_image_j"].half_width < 0.01 * 625.0
    assert known["energy_per_image_j"].low <= 625.0 <= known["energy_per_image_j"].high


@given(st.lists(st.floats(0.5, 20.0), min_size=4, max_size=30).map(np.cumsum), st.integers(1, 6))
def test_what_is_made_is_the_same_however_it_is_cut(ends_s: np.ndarray, size: int) -> None:
    run = whole_answers(batches(ends_s.tolist(), size))
    assert whole_answers(run) == run or whole_answers(run).window_start_s == run.window_start_s
    start_s, end_s = run.window_start_s, run.window_end_s
    parts = made_per_batch(run, np.linspace(start_s, end_s, 17))
    assert parts.sum() == pytest.approx(made_within(run, start_s, end_s))
    assert (parts >= 0).all()


def test_raw_records_keep_units_and_output() -> None:
    run = batches([100.0, 200.0], 2, units=5.4, output=Output.VIDEO)
    again = decode(encode(run))
    assert again.output is Output.VIDEO
    assert [r.units for r in again.requests] == [5.4] * 4
