from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.evaluation.emulated.emulation import TextEmulation
from tuner.evaluation.emulated.virtual import VirtualEvaluator
from tuner.evaluation.evaluator import LoadRun
from tuner.evaluation.factory import measurement_plan, space_knobs
from tuner.evaluation.launched.launch_sharing import LiveKnobs
from tuner.load.workload import load_workload
from tuner.measurement.steady_window import SteadyWindow
from tuner.metrics import STRETCH_HEAVINESS
from tuner.records import Measurement
from tuner.spec.search_space import SearchSpace
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


@pytest.mark.parametrize(("gpus", "copies"), [(8, 4), (4, 2), (2, 1)])
def test_the_widest_configuration_has_the_fixed_sizes_too(gpus: int, copies: int) -> None:
    space = SearchSpace.model_validate(
        {
            "name": "copies",
            "flags": {"data_parallel_size": {"type": "choice", "choices": ["unset", 2, 4]}},
        }
    )
    fixed = Configuration({"tensor_parallel_size": 2})
    widest = space_knobs(space, gpus, fixed).widest
    assert widest.flags.get("data_parallel_size", 1) == copies


def test_a_closed_load_begins_where_it_settles() -> None:
    spec = StudySpec(model="Qwen/Qwen3-8B", slo=("p99_tpot_ms<=25",), concurrency=8, trials=1)
    assert (
        measurement_plan(spec, load_workload("chat"), Configuration()).window.begins_after_s is None
    )


def test_an_unseen_stretch_of_an_open_load_says_how_heavy_it_is() -> None:
    """Beside the metrics; the search's own stretch is what it is for all."""
    spec = StudySpec(
        model="Qwen/Qwen3-8B",
        slo=("p99_tpot_ms<=25",),
        request_rate=4.0,
        trials=1,
        emulate="H100-SXM",
        min_window_s=20.0,
        max_window_s=20.0,
        confirm_window_s=20.0,
    )
    plan = measurement_plan(spec, load_workload("chat"), Configuration())
    assert plan.heaviness is not None and plan.unseen_window is not None
    assert plan.heaviness.window_s[0] == plan.unseen_window.begins_after_s
    gpu = load_gpu("H100-SXM")
    emulation = TextEmulation(load_model(spec.model), gpu)
    evaluator = VirtualEvaluator(emulation, gpu, plan, 0, LiveKnobs({}))
    unseen = asyncio.run(evaluator.confirm(Configuration(), 0, 3)).result
    searched = asyncio.run(evaluator.evaluate(Configuration(), 0)).result
    assert isinstance(unseen, Measurement) and isinstance(searched, Measurement)
    assert unseen.metrics[STRETCH_HEAVINESS] == plan.heaviness.of(3)
    assert STRETCH_HEAVINESS not in searched.metrics
    asks_more = plan.run_of(Configuration(load={"request_rate": 5.0}), 3)
    assert STRETCH_HEAVINESS not in _metrics_of(asks_more, emulation)


def _metrics_of(run: LoadRun, emulation: TextEmulation) -> Mapping[str, float]:
    found = run.reduce(emulation.run(Configuration(), run, SteadyWindow(run.window), 0))
    assert isinstance(found, Measurement)
    return found.metrics
