"""A knob that makes no difference is not part of what is confirmed, and a kill loses nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from helpers.scripted import physics
from helpers.testbed import SPEC, Died, Testbed

from tuner.analysis.recommendation.recommend import recommend
from tuner.configuration import Configuration
from tuner.records import Failure, Measurement
from tuner.slo import Slo
from tuner.store import Store
from tuner.study.confirmation.members import AIM_FROM
from tuner.study.confirmation.run import ConfirmationRun
from tuner.study.loop import StudyRun

WIDE = SPEC.model_copy(update={"trials": 30, "slos": (Slo("p99_tpot_ms", 85.0),)})


def start(bed: Testbed) -> tuple[StudyRun, ConfirmationRun]:
    confirmation = ConfirmationRun("s", bed.spec, bed.store, bed.fleet, bed.listener)
    proposals = bed.start()._proposals
    run = StudyRun("s", bed.spec, bed.store, proposals, bed.fleet, bed.listener, confirmation)
    run.reconcile()
    return run, confirmation


async def to_the_end(run: StudyRun, confirmation: ConfirmationRun) -> None:
    await run.run()
    await confirmation.run(run.simplify)


def test_what_is_confirmed_sets_only_what_matters(store: Store) -> None:
    bed = Testbed(store, spec=WIDE)
    run, confirmation = start(bed)
    asyncio.run(to_the_end(run, confirmation))
    best = recommend(store).best
    assert best.configuration == Configuration(flags={"max_num_seqs": 256})
    (contribution,) = recommend(store).contributions
    assert contribution.name == "max_num_seqs"
    assert contribution.energy_percent == pytest.approx(100 * (0.1625 / 0.13125 - 1))
    trials = store.trials("s")
    assert len(trials) > 30 and trials[-1].number == len(trials) - 1
    again = start(bed)
    asyncio.run(to_the_end(*again))
    assert store.trials("s") == trials  # nothing is left to try


@pytest.mark.parametrize("seed", range(2))
def test_noise_keeps_no_knob(store: Store, seed: int) -> None:
    """Each window is off by 1 % and its latency by more, so that it may be the knob's doing."""

    def noisy(configuration: Configuration, trial: int) -> Measurement | Failure:
        found = physics(configuration, trial)
        assert isinstance(found, Measurement)
        rng = np.random.default_rng([seed, trial])
        off = {"energy_per_output_token_j": 0.01, "p99_tpot_ms": 0.015}
        metrics = {
            name: value * (1.0 + off.get(name, 0.0) * float(rng.standard_normal()))
            for name, value in found.metrics.items()
        }
        return replace(found, metrics=metrics)

    bed = Testbed(store, noisy, WIDE)
    asyncio.run(to_the_end(*start(bed)))
    assert list(recommend(store).best.configuration.knobs()) == ["max_num_seqs"]
    trials = store.trials("s")
    windows = Counter(str(t.configuration) for t in trials)
    assert (
        max(windows.values()) <= 4
    )  # the search asked once, and three times it was measured again


def test_a_kill_while_a_knob_is_tried_costs_that_trial(store: Store) -> None:
    def dying(configuration: Configuration, trial: int) -> Measurement | Failure:
        if len(configuration.knobs()) == 1:
            raise Died
        return physics(configuration, trial)

    bed = Testbed(store, dying, WIDE)
    with pytest.raises(Died):
        asyncio.run(to_the_end(*start(bed)))
    bed.evaluator.script = bed.evaluator.again = physics
    asyncio.run(to_the_end(*start(bed)))
    assert recommend(store).best.configuration == Configuration(flags={"max_num_seqs": 256})


def test_a_short_study_has_the_trials_that_were_asked_for(store: Store) -> None:
    bed = Testbed(store, spec=WIDE.model_copy(update={"trials": 12}))
    asyncio.run(to_the_end(*start(bed)))
    assert len(store.trials("s")) == 12


def test_what_is_tried_on_unseen_traffic_during_a_night_sets_one_knob(store: Store) -> None:
    spec = WIDE.model_copy(update={"trials": None, "hours": 1.0 / 6.0})
    bed = Testbed(store, spec=spec)
    run, confirmation = start(bed)
    asyncio.run(run.run())
    trials, aims = store.trials("s"), store.repeats.of("s")
    assert aims
    for aim in aims:
        assert aim.traffic is not None and aim.traffic >= AIM_FROM
        assert len(trials[aim.trial].configuration.knobs()) == 1
    assert store.study("s").spent_s <= spec.budget_s
    asyncio.run(confirmation.run(run.simplify))
    assert recommend(store).best.configuration == Configuration(flags={"max_num_seqs": 256})
    assert store.study("s").spent_s <= spec.budget_s
