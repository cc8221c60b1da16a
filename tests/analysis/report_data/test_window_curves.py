from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tuner.analysis.report_data.report_data import ChosenWindow
from tuner.analysis.report_data.window_curves import SHARES, window_curves
from tuner.measurement.reduce import reduce_run
from tuner.records import (
    Measurement,
    PowerTimeline,
    RawRun,
    RequestRecord,
    RequestState,
    ServerTimeline,
    Source,
)


@pytest.fixture
def raw() -> RawRun:
    times_s = np.arange(0.0, 200.0, 0.1)
    requests = tuple(
        RequestRecord(
            request_id=k,
            prompt_tokens=4,
            output_tokens=3,
            scheduled_s=k * 1.0,
            sent_s=k * 1.0,
            token_times_s=k + np.array([0.1, 0.2, 0.3]) * (1.0 + k % 7),
            ended_s=k + 3.0,
            state=RequestState.DONE,
        )
        for k in range(190)
    )
    power_w = 300.0 + 100.0 * np.sin(times_s)
    return RawRun(
        requests=requests,
        power=PowerTimeline(times_s, power_w, np.cumsum(power_w) * 0.1, Source.MEASURED),
        server=ServerTimeline(times_s, np.full(2000, 8.0), np.zeros(2000)),
        window_start_s=20.0,
        window_end_s=180.0,
        latency_source=Source.MEASURED,
    )


def test_quantiles_agree_with_the_metrics_of_the_same_window(raw: RawRun) -> None:
    measured = reduce_run(raw, {})
    assert isinstance(measured, Measurement)
    found = window_curves(ChosenWindow("default", 0, None, raw)).quantiles_ms
    for latency in ("ttft_ms", "tpot_ms", "e2el_ms", "itl_ms"):
        p50 = float(np.interp(0.5, SHARES, found[latency]))
        p99 = float(np.interp(0.99, SHARES, found[latency]))
        assert p50 == pytest.approx(measured.metrics[f"p50_{latency}"], rel=0.05)
        assert p99 == pytest.approx(measured.metrics[f"p99_{latency}"], rel=0.05)


def test_the_clock_is_drawn_where_it_is_known(raw: RawRun) -> None:
    assert window_curves(ChosenWindow("default", 0, None, raw)).sm_clock_mhz is None
    clock_mhz = np.full(2000, 1980.0)
    clock_mhz[::2] = np.nan
    known = replace(raw, power=replace(raw.power, sm_clock_mhz=clock_mhz))
    found = window_curves(ChosenWindow("default", 0, None, known)).sm_clock_mhz
    assert found is not None
    assert set(found.values) == {1980.0}
    assert len(found.times_s) <= 400


def test_long_series_are_thinned_to_means_and_start_at_the_window(raw: RawRun) -> None:
    found = window_curves(ChosenWindow("default", 0, None, raw))
    assert len(found.power_w.values) <= 400
    assert found.power_w.times_s[0] == pytest.approx(-20.0, abs=0.5)
    assert np.mean(found.power_w.values) == pytest.approx(np.mean(raw.power.power_w), abs=0.5)
    assert set(found.running.values) == {8.0}
    assert found.window_length_s == 160.0
