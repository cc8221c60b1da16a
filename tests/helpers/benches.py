"""Benches that evaluate on the emulator's virtual clock: orders, and what each carrier does."""

from __future__ import annotations

from pathlib import Path

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.devices.limit_control import Access
from tuner.evaluation.emulated.emulation import TextEmulation
from tuner.evaluation.emulated.virtual import VirtualEvaluator
from tuner.evaluation.evaluator import Evaluation, MeasurementPlan
from tuner.evaluation.factory import measurement_plan, space_knobs
from tuner.evaluation.headroom import headroom_run
from tuner.evaluation.launched.launch_sharing import LiveKnobs
from tuner.evaluation.remote.protocol import BenchOrder
from tuner.evaluation.remote.remote_evaluator import RemoteEvaluator
from tuner.load.workload import load_workload
from tuner.records import Load, Measurement
from tuner.spec.device_ranges import ranges_for
from tuner.spec.search_space import load_space
from tuner.spec.study import StudySpec

CAPPED = Configuration(flags={"max_num_seqs": 64}, device={"power_limit_w": 400})
SPEC = StudySpec(
    model="Qwen/Qwen3-8B",
    workload="smoke",
    space="power",
    slo=("p99_tpot_ms<=100",),
    concurrency=8,
    emulate="H100-SXM:3",
    window_s=20.0,
    trials=4,
)


def plan() -> MeasurementPlan:
    return measurement_plan(SPEC, load_workload("smoke"), Configuration())


def metrics(evaluation: Evaluation) -> dict[str, float]:
    assert isinstance(evaluation.result, Measurement)
    return dict(evaluation.result.metrics)


async def check_same_as_here(remote: RemoteEvaluator) -> Evaluation:
    """Fail unless a bench returns what its evaluator returns here; return an evaluation of it."""
    gpu = load_gpu("H100-SXM:3")
    model = TextEmulation(load_model(SPEC.model), gpu)
    here = VirtualEvaluator(model, gpu, plan(), SPEC.seed, LiveKnobs({}))
    assert await remote.prepare() == await here.prepare()
    assert await remote.defaults() == await here.defaults()
    there = await remote.evaluate(CAPPED, 3)
    assert metrics(there) == metrics(await here.evaluate(CAPPED, 3))
    assert remote.is_warm_for(CAPPED) and not remote.is_warm_for(Configuration())
    probe = headroom_run(plan(), Load(concurrency=4), 1)
    assert metrics(await remote.probe(CAPPED, 0, probe)) == metrics(
        await here.probe(CAPPED, 0, probe)
    )
    return there


def virtual_order(folder: Path) -> BenchOrder:
    knobs = space_knobs(load_space("power", lambda: ranges_for(SPEC)), 1)
    return BenchOrder(SPEC, plan(), knobs, "night-1", folder / "card-3", Access.SET)
