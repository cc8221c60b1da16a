"""How heavy a stretch is, against all that the workload may send."""

from __future__ import annotations

import pickle
import statistics
from pathlib import Path

import pytest

from tuner.load.heaviness.stretch_heaviness import StretchHeaviness, stretch_heaviness
from tuner.load.traces.trace_file import TraceRow, write_trace
from tuner.load.workload import Workload, WorkloadSpec, load_workload
from tuner.records import Load
from tuner.slo import Slo

SLO = Slo("p99_tpot_ms", 50.0)
WINDOW_S = (5.0, 25.0)


@pytest.fixture(scope="module")
def heaviness() -> StretchHeaviness:
    found = stretch_heaviness(load_workload("chat"), Load(request_rate=2.0), [SLO], WINDOW_S)
    assert found is not None
    return found


def test_stretches_are_as_heavy_as_all_on_average(heaviness: StretchHeaviness) -> None:
    found = [heaviness.of(number) for number in range(150)]
    values = [value for value in found if value is not None]
    assert len(values) == len(found)
    assert statistics.fmean(values) == pytest.approx(0.0, abs=0.3)
    assert statistics.stdev(values) == pytest.approx(1.0, abs=0.2)


def test_it_is_the_same_in_another_process(heaviness: StretchHeaviness) -> None:
    sent = pickle.loads(pickle.dumps(heaviness))
    anew = stretch_heaviness(load_workload("chat"), Load(request_rate=2.0), [SLO], WINDOW_S)
    assert anew is not None
    assert heaviness.of(3) == sent.of(3) == anew.of(3)
    assert heaviness.of(3) != heaviness.of(4)


@pytest.mark.parametrize(
    ("load", "slo"),
    [
        (Load(concurrency=8), SLO),
        (Load(request_rate=2.0), Slo("p99_ttft_ms", 500.0)),
        (Load(request_rate=2_000.0), SLO),
    ],
)
def test_where_it_is_not_known_in_advance_there_is_none(load: Load, slo: Slo) -> None:
    assert stretch_heaviness(load_workload("chat"), load, [slo], WINDOW_S) is None


def test_windows_without_an_answer_have_none() -> None:
    found = stretch_heaviness(load_workload("chat"), Load(request_rate=0.05), [SLO], (0.0, 2.0))
    assert found is not None
    assert found.of(0) is None


@pytest.mark.parametrize(("rows", "is_known"), [(40, True), (5_001, False)])
def test_a_long_trace_is_not_read_hundreds_of_times(
    tmp_path: Path, rows: int, is_known: bool
) -> None:
    with (tmp_path / "trace.jsonl.gz").open("wb") as file:
        requests = (TraceRow(float(n), 5 + n % 11, prompt_tokens=20 + n % 7) for n in range(rows))
        write_trace(file, requests)
    spec = WorkloadSpec.model_validate(
        {
            "description": "for a test",
            "trace": {"file": "trace.jsonl.gz"},
            "load": {"request_rate": 1.0, "arrivals": "trace"},
        }
    )
    workload = Workload("trace", spec, tmp_path)
    found = stretch_heaviness(workload, Load(request_rate=2.0), [SLO], WINDOW_S)
    assert (found is not None) == is_known
    assert found is None or found.of(1) is not None
