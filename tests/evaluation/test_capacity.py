"""`--request-rate 0.7x`: a share of what the default configuration sustains."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers.scripted import ScriptedEvaluator, infrastructure, measurement
from helpers.studies import InProcess
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.configuration import Configuration
from tuner.errors import PreflightError, UsageError
from tuner.evaluation.capacity import (
    HIGHEST_RATE,
    capacity_window,
    default_capacity,
    search,
)
from tuner.evaluation.evaluator import Evaluation, Evaluator
from tuner.evaluation.factory import (
    RunContext,
    configuration_knobs,
    make_evaluator,
    measurement_plan,
)
from tuner.load.workload import load_workload
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Failure, FailureKind, Measurement
from tuner.slo import Slo, meets_all
from tuner.spec.study import spec_from
from tuner.store import Store

SLOS = (Slo.parse("p99_tpot_ms<=50"),)
LOWEST_RATE = 1 / 16
WINDOW = WindowPlan(window_s=128.0)


def queue(configuration: Configuration, trial: int) -> Measurement | Failure:
    """A latency that rises with the rate; 12.5 requests/s is the most that it meets."""
    rate = float(configuration.load["request_rate"])
    return measurement(p99_tpot_ms=4.0 * rate)


@settings(deadline=None)
@given(st.floats(LOWEST_RATE, HIGHEST_RATE / 2))
async def test_the_rate_is_found_wherever_it_lies(truth: float) -> None:
    async def sustains(rate: float) -> str | None:
        return None if rate <= truth else "too much"

    found = await search(sustains, LOWEST_RATE)
    assert found.missed_rate is not None
    assert found.request_rate <= truth < found.missed_rate <= 1.03 * found.request_rate
    assert found.tries <= 20


async def test_a_server_that_nothing_is_too_much_for() -> None:
    async def sustains(rate: float) -> str | None:
        return None

    found = await search(sustains, LOWEST_RATE)
    assert (found.request_rate, found.missed_rate) == (HIGHEST_RATE, None)
    assert "sustains 4.1e+03 requests/s, found" in str(found)


async def test_no_rate_is_low_enough() -> None:
    async def sustains(rate: float) -> str | None:
        return "p99_tpot_ms is 60 (SLO: p99_tpot_ms<=50)"

    with pytest.raises(PreflightError, match=r"even 0\.0625 requests/s .* is 60 .* relax the SLO"):
        await search(sustains, LOWEST_RATE)


async def test_the_default_configuration_is_asked_and_the_slo_decides() -> None:
    evaluator, notes = ScriptedEvaluator(queue), []
    found = await default_capacity(evaluator, SLOS, WINDOW, notes.append)
    assert found.request_rate == pytest.approx(12.5, rel=0.03)
    assert found.request_rate <= 12.5
    assert found.share(0.7) == pytest.approx(0.7 * found.request_rate, rel=0.005)
    assert all(set(c.knobs()) == {"request_rate"} for _, c in evaluator.asked)
    assert len(notes) == len(evaluator.asked) + 1
    assert "p99_tpot_ms is 64 (SLO: p99_tpot_ms<=50)" in notes[4]


async def test_a_load_that_cannot_be_kept_up_with_is_too_much() -> None:
    def falls_behind(configuration: Configuration, trial: int) -> Measurement | Failure:
        if float(configuration.load["request_rate"]) > 3.0:
            return Failure(FailureKind.CONFIGURATION, "the queue grew")
        return measurement(p99_tpot_ms=1.0)

    class WithRaw(ScriptedEvaluator):
        async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
            found = await super().evaluate(configuration, trial)
            return dataclasses.replace(found, raw=object())

    found = await default_capacity(WithRaw(falls_behind), SLOS, WINDOW, lambda _: None)
    assert 2.9 < found.request_rate <= 3.0
    assert found.missed == "the queue grew"


async def test_a_fault_of_the_moment_is_tried_once_more() -> None:
    faults = [infrastructure(), infrastructure("no memory")]

    def once(configuration: Configuration, trial: int) -> Measurement | Failure:
        return faults.pop() if len(faults) == 2 else queue(configuration, trial)

    assert (await default_capacity(ScriptedEvaluator(once), SLOS, WINDOW, lambda _: None)).tries > 3

    def always(configuration: Configuration, trial: int) -> Measurement | Failure:
        return infrastructure("no memory")

    with pytest.raises(PreflightError, match="could not be measured at 1 requests/s: no memory"):
        await default_capacity(ScriptedEvaluator(always), SLOS, WINDOW, lambda _: None)


async def test_a_default_that_does_not_start_says_so() -> None:
    def refused(configuration: Configuration, trial: int) -> Measurement | Failure:
        return Failure(FailureKind.CONFIGURATION, "no room for the KV cache")

    with pytest.raises(PreflightError, match="no room for the KV cache"):
        await default_capacity(ScriptedEvaluator(refused), SLOS, WINDOW, lambda _: None)


def test_a_fixed_window_stays_and_an_adaptive_one_looks_at_the_slo_only() -> None:
    assert capacity_window(WindowPlan(window_s=7.0), SLOS) == WindowPlan(window_s=7.0)
    spec = spec_from(None, {"model": "M", "trials": 1, "slo": ("p99_tpot_ms<=50",)})
    plan = capacity_window(spec.window_plan, spec.slos)
    assert plan.precision is not None
    assert plan.precision.percentiles == ("p99_tpot_ms",)
    assert spec.window_plan.precision is not None
    assert plan.precision.energy_share > spec.window_plan.precision.energy_share


@pytest.mark.parametrize("text", ["0x", "-1x", "x", "ax", "3x"])
def test_a_share_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="request_rate"):
        spec_from(None, {"model": "M", "trials": 1, "request_rate": text})


def test_a_share_and_a_concurrency_exclude_each_other() -> None:
    said = r"^request_rate \(open loop\) and concurrency .* exclude each other$"
    with pytest.raises(UsageError, match=said):
        spec_from(None, {"model": "M", "trials": 1, "request_rate": "0.7x", "concurrency": 4})
    spec = spec_from(None, {"model": "M", "trials": 1, "request_rate": "0.7x"})
    assert (spec.request_rate, spec.request_rate_share, spec.load) == (None, 0.7, None)
    assert spec_from(None, {"model": "M", "trials": 1, "request_rate": "4"}).request_rate == 4.0


ANSWERS = """
description: answers of one kind, so that a window of a minute has hundreds of them
load: {request_rate: 1}
prompt_tokens: {distribution: uniform, min: 200, max: 600}
output_tokens: {distribution: uniform, min: 400, max: 600}
seed: 5
vocab_size: 32000
"""


async def test_the_emulators_capacity_is_what_brute_force_finds(tmp_path: Path) -> None:
    file = tmp_path / "answers.yaml"
    file.write_text(ANSWERS)
    options = {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "workload": str(file),
        "emulate": "H100-SXM",
        "slo": ("p99_tpot_ms<=9",),
        "trials": 1,
    }
    spec = spec_from(None, options)
    task = measurement_plan(spec, load_workload(spec.workload), Configuration())

    def evaluator(window: WindowPlan) -> Evaluator:
        knobs = configuration_knobs(Configuration())
        place = RunContext("test", tmp_path)
        measured = dataclasses.replace(task, window=window, ends_early=True)
        return make_evaluator(spec, measured, knobs, place)

    window = capacity_window(spec.window_plan, spec.slos)
    found = await default_capacity(evaluator(window), spec.slos, window, lambda _: None)
    # Windows longer than any of the search's, at rates 2.5 % apart.
    slow = evaluator(WindowPlan(window_s=240.0, warmup_limit_s=240.0))
    met = []
    for step in range(-3, 4):
        rate = found.request_rate * 1.025**step
        result = (await slow.evaluate(Configuration(load={"request_rate": rate}), 1)).result
        if isinstance(result, Measurement) and meets_all(result.metrics, spec.slos):
            met.append(rate)
    assert len(met) not in (0, 7), "the truth lies outside what was tried"
    assert found.request_rate == pytest.approx(max(met), rel=0.05)


def test_a_study_at_a_share_of_the_capacity_keeps_its_rate(tmp_path) -> None:
    tuner = InProcess(tmp_path)
    words = (
        "--emulate H100-SXM --model meta-llama/Llama-3.1-8B-Instruct --workload smoke --trials 1"
    )
    slo = ("--slo", "p99_tpot_ms<=9", "--window-s", "10", "--study", "share", "--no-confirm")
    ran = tuner("run", *words.split(), "--request-rate", "0.5x", *slo)
    assert ran.returncode == 0, ran.stderr
    assert "the load is 0.5 of it" in ran.stderr
    store = Store.open(tuner.store_path, create=False)
    stored = store.study("share").spec_json
    capacity = stored["capacity"]["request_rate"]
    assert stored["request_rate"] == pytest.approx(0.5 * capacity, rel=0.005)
    assert [e.kind for e in store.events("share")].count("capacity") == 1
    load = f"{stored['request_rate']:g} requests/s, 0.5 of the {capacity:.3g} that the default"
    for words in (("show", "share"), ("recommend", "--study", "share")):
        assert load in " ".join(tuner(*words).stdout.split()), words
    resumed = tuner("resume", "share", "--trials", "1")
    assert resumed.returncode == 0, resumed.stderr
    assert "capacity" not in resumed.stderr
    assert store.study("share").spec_json == stored


def test_an_slo_that_nothing_meets_ends_before_a_study_is_made(tmp_path) -> None:
    tuner = InProcess(tmp_path)
    words = (
        "--emulate H100-SXM --model meta-llama/Llama-3.1-8B-Instruct --workload smoke --trials 1"
    )
    slo = ("--slo", "p99_tpot_ms<=0.1", "--window-s", "10", "--study", "share", "--trials", "1")
    ran = tuner("run", *words.split(), "--request-rate", "0.5x", *slo)
    assert ran.returncode == 3
    assert "does not sustain even 1 requests/s" in ran.stderr
    assert Store.open(tuner.store_path, create=False).studies() == []
