"""A configuration that was ended early is stored with what is known, and is never a good one."""

from __future__ import annotations

import asyncio
import dataclasses
import math

import pytest
from helpers.scripted import named_constraints, physics
from helpers.testbed import Testbed

from tuner.analysis.outcomes import feasible, front, measured
from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.evaluation.emulated.emulation import TextEmulation
from tuner.evaluation.emulated.virtual import VirtualEvaluator
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.evaluation.launched.launch_sharing import LiveKnobs
from tuner.evaluation.traffic import Traffic
from tuner.load.workload import load_workload
from tuner.measurement.steady_window import WindowPlan
from tuner.records import EarlyEnd, Failure, FailureKind, Load, Measurement
from tuner.slo import Slo
from tuner.store import Store
from tuner.store.raw import decode, encode
from tuner.study.proposals.proposals import LAUNCH_OK

REASON = "ended early: 9 of 9 requests were past p99_tpot_ms<=40 in the first 5 s"
SLOS = (Slo("p99_ttft_ms", 40.0),)


def ended_early(configuration: Configuration, trial: int) -> Measurement | Failure:
    """Trial 2 is the best of all by its figures so far, and was ended early."""
    whole = physics(configuration, trial)
    assert isinstance(whole, Measurement)
    if trial != 2:
        return whole
    best = {**whole.metrics, "energy_per_output_token_j": 1e-3, "p99_tpot_ms": 41.0}
    return dataclasses.replace(whole, metrics=best, ended_early=REASON)


def test_it_is_stored_whole_and_told_as_violating_its_slo(store: Store) -> None:
    bed = Testbed(store, ended_early)
    bed.run()
    row = store.trials("s")[2]
    assert row.measurement is not None
    assert row.measurement.ended_early == REASON
    assert row.measurement.metrics["energy_per_output_token_j"] == 1e-3
    told = bed.optuna_trials[2]
    assert told.values == pytest.approx([math.log(1e-3), math.log(41.0)])
    assert named_constraints(told) == pytest.approx(
        {LAUNCH_OK: -1.0, "p99_tpot_ms<=40": math.log(41 / 40)}
    )


def test_it_is_never_on_a_front_whatever_the_slo(store: Store) -> None:
    Testbed(store, ended_early).run()
    study, trials = store.study("s"), store.trials("s")
    loose = (Slo("p99_tpot_ms", 1e6),)
    assert 2 not in {t.number for t in measured(trials)}
    for slos in (None, (), loose):
        numbers = {t.number for t in front(study, trials, slos)}
        assert numbers and 2 not in numbers
    assert 2 not in {t.number for t in feasible(trials, loose)}


def test_one_that_measured_too_little_is_its_own_fault_at_once(store: Store) -> None:
    def script(configuration: Configuration, trial: int) -> Measurement | Failure:
        result = ended_early(configuration, trial)
        if trial != 2:
            return result
        assert isinstance(result, Measurement)
        kept = {k: v for k, v in result.metrics.items() if k != "p99_tpot_ms"}
        return dataclasses.replace(result, metrics=kept)

    bed = Testbed(store, script)
    bed.run()
    failure = store.trials("s")[2].failure
    assert failure is not None
    assert (failure.kind, failure.reason) == (FailureKind.CONFIGURATION, REASON)
    assert len(bed.evaluator.asked) == 8  # it was not tried again


@pytest.fixture
def task() -> MeasurementPlan:
    chat = load_workload("chat")
    window = WindowPlan(window_s=60.0)
    load = Load(concurrency=64)
    return MeasurementPlan("m", Traffic(chat), load, SLOS, window, Configuration(), ends_early=True)


def test_the_baseline_is_measured_to_the_end(task: MeasurementPlan) -> None:
    assert task.window_for(Configuration()).slos == ()
    other = Configuration(flags={"max_num_seqs": 512})
    assert task.window_for(other).slos == SLOS
    assert dataclasses.replace(task, ends_early=False).window_for(other).slos == ()

    model, gpu = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_gpu("H100-SXM")
    evaluator = VirtualEvaluator(TextEmulation(model, gpu), gpu, task, 0, LiveKnobs({}))
    baseline = asyncio.run(evaluator.evaluate(Configuration(), 0))
    assert isinstance(baseline.result, Measurement) and baseline.result.ended_early is None
    assert baseline.result.metrics["p99_ttft_ms"] > 40.0
    ended = asyncio.run(evaluator.evaluate(other, 1))
    assert isinstance(ended.result, Measurement) and ended.result.ended_early is not None
    assert ended.timing.elapsed_s < baseline.timing.elapsed_s
    assert ended.warnings == ()
    assert ended.raw is not None
    again = decode(encode(ended.raw))
    assert again.ended_early == ended.raw.ended_early
    assert task.reduce(again) == ended.result


def test_raw_records_keep_why_they_are_invalid(task: MeasurementPlan) -> None:
    model, gpu = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_gpu("H100-SXM")
    short = dataclasses.replace(task, window=WindowPlan(window_s=5.0, warmup_limit_s=5.0))
    raw = asyncio.run(
        VirtualEvaluator(TextEmulation(model, gpu), gpu, short, 0, LiveKnobs({})).evaluate(
            Configuration(), 0
        )
    ).raw
    assert raw is not None
    spoilt = dataclasses.replace(raw, invalid="the client was slow", ended_early=None)
    again = decode(encode(spoilt))
    assert (again.invalid, again.ended_early) == ("the client was slow", None)
    assert task.reduce(again) == Failure(FailureKind.BUSY, "the client was slow")
    outgrown = dataclasses.replace(raw, ended_early=EarlyEnd("a queue that grows", None))
    assert task.reduce(decode(encode(outgrown))) == Failure(
        FailureKind.CONFIGURATION, "a queue that grows"
    )
