import io
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

from tuner.configuration import Configuration
from tuner.evaluation.measure_once import measure_once
from tuner.measurement.listener import NoteListener
from tuner.report.terminal.measurement_table import measured_json, show_measured
from tuner.spec.study import spec_from


async def test_a_measurement_says_how_precise_it_is() -> None:
    options = {
        "model": "Qwen/Qwen3-8B", "workload": "smoke", "emulate": "H100-SXM", "trials": 1,
        "concurrency": 8, "slo": ["p99_tpot_ms<=50"], "max_window_s": 25.0, "precision": 0.1,
    }  # fmt: skip
    measured = await measure_once(spec_from(None, options), Configuration())
    energy, tpot = measured.precision
    assert (energy.metric, energy.target_share) == ("energy_per_output_token_j", 0.1)
    assert energy.half_width_share is not None and energy.half_width_share <= 0.1
    assert energy.reached
    shown = measured_json(measured)
    assert shown["precision"]["energy_per_output_token_j"]["reached"] is True
    assert shown["precise"] is tpot.reached
    assert any("p99_tpot_ms" in w for w in measured.warnings) is not tpot.reached

    console = Console(file=io.StringIO(), width=200)
    show_measured(console, measured, ())
    text = console.file.getvalue()
    assert f"window of {shown['window_s']:.0f} s" in text
    assert "energy_per_output_token_j" in text.split("half-widths")[1]


async def test_a_fixed_window_has_no_precision_to_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    options = {"model": "Qwen/Qwen3-8B", "workload": "smoke", "emulate": "H100-SXM", "trials": 1}
    spec = spec_from(None, {**options, "window_s": 8.0})
    shown = measured_json(await measure_once(spec, Configuration()))
    assert shown["window_s"] == pytest.approx(8.0)
    assert (shown["precise"], shown["precision"]) == (None, {})
    assert not any("interval" in warning for warning in shown["warnings"])
    assert not any(tmp_path.glob("tuner-*"))  # noqa: ASYNC240 - nobody else waits


async def test_a_share_of_the_capacity_is_searched_first() -> None:
    options = {
        "model": "Qwen/Qwen3-8B", "workload": "smoke", "emulate": "H100-SXM", "trials": 1,
        "request_rate": "0.5x", "slo": ["p99_tpot_ms<=9"], "window_s": 8.0,
    }  # fmt: skip
    notes: list[str] = []
    settings = Configuration(flags={"max_num_seqs": 64})
    measured = await measure_once(spec_from(None, options), settings, NoteListener(notes.append))
    said = next(note for note in notes if "the load is 0.5 of it" in note)
    rate = measured.load.request_rate
    assert rate is not None
    assert f"{rate:g} requests/s" in said
    shown = measured_json(measured)
    assert shown["load"] == {"request_rate": rate}
    assert shown["metrics"]["request_throughput_req_s"] == pytest.approx(rate, rel=0.2)
    console = Console(file=io.StringIO(), width=200)
    show_measured(console, measured, ())
    assert f"open loop, {rate:g} requests/s" in console.file.getvalue()
