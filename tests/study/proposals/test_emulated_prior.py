"""The emulator's front as points to begin with."""

from __future__ import annotations

import asyncio

import optuna
import pytest
from helpers.scripted import measurement

from tuner.catalog.gpu import load_gpu
from tuner.catalog.gpu_names import emulated_gpu
from tuner.configuration import Configuration
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.evaluation.factory import fixed_configuration, measurement_plan
from tuner.load.workload import load_workload
from tuner.spec.search_space import SearchSpace
from tuner.spec.study import StudySpec
from tuner.study.proposals.emulated_prior import MOST_POINTS, emulated_front, enqueue_prior
from tuner.study.proposals.proposals import Proposals
from tuner.study.proposals.start_points import parameters_of

SPEC = StudySpec(
    model="meta-llama/Llama-3.1-8B-Instruct",
    workload="smoke",
    concurrency=32,
    slo=("p99_tpot_ms<=25",),
    trials=20,
    min_window_s=2.0,
    max_window_s=2.0,
)
SPACE = SearchSpace.model_validate(
    {
        "name": "two",
        "flags": {"max_num_seqs": {"type": "power_of_two", "low": 1, "high": 1024}},
        "device": {"power_limit_w": {"type": "int", "low": 200, "high": 700, "step": 100}},
    }
)
GPU = load_gpu("H100-SXM")
DEFAULTS = {"max_num_seqs": 1024, "power_limit_w": 700}


def task(space: SearchSpace = SPACE) -> MeasurementPlan:
    return measurement_plan(SPEC, load_workload(SPEC.workload), fixed_configuration(space))


def first_asked(points: list[Configuration], count: int) -> tuple[list[Configuration], str | None]:
    """Return what a study asks for first, when everything is measured as the same."""
    storage = optuna.storages.InMemoryStorage()
    proposals = Proposals(storage, "s", SPACE, SPEC.slos, SPEC.objectives, "gp", 0)
    proposals.enqueue_baseline(DEFAULTS)
    told = enqueue_prior(proposals, SPACE, points, DEFAULTS, GPU)
    asked = []
    for _ in range(count):
        proposal = proposals.ask()
        asked.append(proposal.configuration)
        seqs = float(proposal.configuration.flags.get("max_num_seqs", 1024))
        proposals.tell_measured(
            proposal.number,
            measurement(energy_per_output_token_j=9 / seqs, p99_tpot_ms=5 + seqs / 100),
        )
    return asked, told


def test_a_study_begins_with_the_default_and_then_the_emulators_front() -> None:
    points = asyncio.run(emulated_front(SPEC, SPACE, task(), GPU))
    assert 2 <= len(points) <= MOST_POINTS
    # at 700 W nothing of the front is lost, but the least energy is below the default limit
    assert int(points[0].device["power_limit_w"]) < 700
    asked, told = first_asked(points, 1 + len(points))
    assert asked == [Configuration(), *points]
    assert told is not None and "emulated" in told and str(points[0].flags["max_num_seqs"]) in told


def test_variables_that_all_share_do_not_matter() -> None:
    asked = {**SPACE.model_dump(), "fixed": {"environment": {"HF_HUB_OFFLINE": 1}}}
    space = SearchSpace.model_validate(asked)
    assert asyncio.run(emulated_front(SPEC, space, task(space), GPU))


def test_a_wrong_prior_costs_its_points_and_nothing_else() -> None:
    wrong = [Configuration({"max_num_seqs": 1}, {}, {"power_limit_w": w}) for w in (200, 300)]
    asked, _ = first_asked(wrong, 14)
    without, told = first_asked([], 12)
    assert told is None
    assert asked[1:3] == wrong
    assert not any(point.flags["max_num_seqs"] == 1 for point in asked[10:])
    best = {max(int(p.flags.get("max_num_seqs", 0)) for p in found) for found in (asked, without)}
    assert best == {1024}  # the least energy of both


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"flags": {"swap_space": {"type": "int", "low": 1, "high": 4}}}, "an unknown flag"),
        ({"environment": {"A": {"type": "choice", "choices": ["x", "y"]}}}, "a variable"),
        ({"device": {"power_limit_w": {"type": "int", "low": 50, "high": 60}}}, "a strange limit"),
    ],
)
def test_what_the_emulator_does_not_know_has_no_prior(change: dict[str, object], what: str) -> None:
    space = SearchSpace.model_validate({"name": "odd", **change})
    assert asyncio.run(emulated_front(SPEC, space, task(space), GPU)) == [], what


def test_a_real_gpu_is_known_by_the_name_that_nvml_gives_it() -> None:
    for name in ("NVIDIA H100 80GB HBM3", "4 x NVIDIA H100 80GB HBM3", "H100-SXM"):
        found = emulated_gpu(name)
        assert found is not None and found.name == "H100-SXM"
    assert emulated_gpu("NVIDIA H100 PCIe") is None


def test_points_outside_the_space_are_not_queued() -> None:
    outside = Configuration({"max_num_seqs": 3000})
    assert parameters_of(SPACE, outside, DEFAULTS) is None
    asked, _ = first_asked([outside], 2)
    assert outside not in asked
