"""A machine whose power drifts over the night: what a configuration saves is still what it saves.

The search, the repeats, their order, the store and the report are the real ones; the clock of the
store and the energies are made up.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from helpers.scripted import measurement, physics
from helpers.testbed import Testbed

from tuner.analysis.confirmed_front import confirmation_notes, confirmed_front
from tuner.configuration import Configuration
from tuner.records import Failure, Measurement
from tuner.spec.study import StudySpec
from tuner.store import Store, convert
from tuner.study.confirmation.run import ConfirmationRun

ENERGY = "energy_per_output_token_j"
EVENING = datetime(2026, 1, 1, 22, tzinfo=UTC)
SPEC = StudySpec(model="m", slo=("p99_tpot_ms<=30",), trials=12, sampler="random")
DRIFT, NIGHT = 0.03, timedelta(minutes=80)  # about what the repeats take


class Clock:
    """Begins and ends of measurements, five minutes from one to the next."""

    def __init__(self) -> None:
        self.at = EVENING

    def now(self) -> datetime:
        self.at += timedelta(minutes=5)
        return self.at

    @property
    def drift(self) -> float:
        """By which factor the machine uses more than in the evening."""
        return 1.0 + DRIFT * ((self.at - EVENING) / NIGHT)


def energy(configuration: Configuration) -> float:
    found = physics(configuration, 0)
    assert isinstance(found, Measurement)
    return found.metrics[ENERGY]


@pytest.mark.parametrize("drifts", [True, False])
def test_a_drift_is_taken_out_of_every_saving_and_reported(
    store: Store, monkeypatch: pytest.MonkeyPatch, drifts: bool
) -> None:
    clock, noise = Clock(), np.random.default_rng(0)
    monkeypatch.setattr(convert, "now", clock.now)

    def measured(configuration: Configuration, number: int) -> Measurement | Failure:
        found = physics(configuration, number)
        assert isinstance(found, Measurement)
        factor = 1.0 + 0.0005 * float(noise.standard_normal())
        factor *= clock.drift if drifts else 1.0
        return measurement(**{**found.metrics, ENERGY: factor * found.metrics[ENERGY]})

    bed = Testbed(store, measured, spec=SPEC)
    bed.run()
    bed.evaluator.again = measured
    run = ConfirmationRun("s", bed.spec, store, bed.fleet, bed.listener)
    asyncio.run(run.run())

    trials = store.trials("s")
    night = confirmed_front(store.study("s"), trials, store.repeats.of("s"))
    assert night.default is not None
    default_j = energy(Configuration())
    naive_errors = []  # what the means alone would have said
    members = [t for t in trials if not t.baseline and t.number in night.confirmations]
    assert sum(night.confirmations[t.number].pairs > 1 for t in members) >= 2
    for trial in members:
        found = night.confirmations[trial.number]
        truth = energy(trial.configuration) / default_j
        assert found.energy is not None
        if found.energy.interval is None:  # a single pair
            continue
        assert 1.0 + found.energy.difference == pytest.approx(truth, rel=0.002)
        assert found.energy.interval.low <= truth - 1.0 <= found.energy.interval.high
        naive = found.estimates[ENERGY].mean / night.default.estimates[ENERGY].mean
        naive_errors.append(abs(naive / truth - 1.0))
    notes = [note for note in confirmation_notes(night) if "drifted" in note]
    assert len(notes) == drifts
    if drifts:
        assert max(naive_errors) > 0.002
