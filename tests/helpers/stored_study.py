"""A stored study with a known answer, and its fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.records import IDENTITY, OWNER, measured
from tuner.configuration import Configuration
from tuner.records import Failure, FailureKind, Measurement, Source, Timing
from tuner.store import (
    Answers,
    RepeatKind,
    Store,
    StudyIdentity,
)

SAME: Answers = tuple((n, n + 1, n + 2) for n in range(64))

# (J/token, p99 TPOT ms, tok/s, max_num_seqs, power limit W); trial 0 is the default
NIGHT = (
    (0.4, 30.0, 5000.0, None, None),
    (0.3, 45.0, 5200.0, 256, 500),
    (0.25, 49.0, 5100.0, 512, 400),
    (0.2, 61.0, 4900.0, 1024, 300),  # over the SLO
    (0.35, 47.0, 4000.0, 128, 600),  # beaten by trial 1
)
FAILURE = Failure(FailureKind.CONFIGURATION, "CUDA out of memory [rank 0]", Path("/logs/5.log"))


def configuration(seqs: int | None, limit_w: int | None) -> Configuration:
    flags = {} if seqs is None else {"max_num_seqs": seqs, "enable_prefix_caching": False}
    device = {} if limit_w is None else {"power_limit_w": limit_w}
    return Configuration(flags=flags, device=device, load={"concurrency": 32})


def measurement(energy_j: float, tpot_ms: float, tok_s: float, source: Source) -> Measurement:
    metrics = {
        "energy_per_output_token_j": energy_j,
        "p99_tpot_ms": tpot_ms,
        "p99_ttft_ms": 10.0 * tpot_ms + 1.0 / 3.0,
        "output_throughput_tok_s": tok_s,
        "mean_power_w": energy_j * tok_s,
    }
    return measured(metrics, source, source)


def add_night(store: Store, identity: StudyIdentity) -> None:
    store.create_study(identity)
    for number, (energy_j, tpot_ms, tok_s, seqs, limit_w) in enumerate(NIGHT):
        store.begin_trial(
            identity.name, number, configuration(seqs, limit_w), baseline=number == 0, owner=OWNER
        )
        found = measurement(energy_j, tpot_ms, tok_s, identity.energy_source)
        store.save_measurement(identity.name, number, found, None)
    for number in (5, 6):
        store.begin_trial(
            identity.name, number, configuration(4096, 700), baseline=False, owner=OWNER
        )
    store.save_failure(identity.name, 5, FAILURE)
    store.save_failure(identity.name, 6, FAILURE)
    store.add_event(identity.name, "failed", "trial 5 [rank 0] died", trial=5)


def repeat(
    store: Store,
    trial: int,
    energy_j: float,
    tpot_ms: float,
    answers: Answers | None = None,
    study: str = "night",
    traffic: int | None = None,
) -> None:
    kind = RepeatKind.BASELINE if trial == 0 else RepeatKind.CONFIRMATION
    number = store.repeats.begin(study, trial, kind, OWNER, traffic)
    found = measurement(energy_j, tpot_ms, 5000.0, Source.MEASURED)
    took = Timing(90.0, 30.0)
    store.repeats.save(study, number, found, None, timing=took, answers=answers)


def confirm(store: Store, member: tuple[float, float], answers: Answers | None = None) -> None:
    """Repeat trial 2 twice, and the default around it; trial 1 once."""
    energy_j, tpot_ms = member
    for factor in (1.0, 1.004):
        repeat(store, 0, 0.40 * factor, 30.0 * factor, None if answers is None else SAME)
        repeat(store, 2, energy_j * factor, tpot_ms * factor, answers)
    repeat(store, 0, 0.401, 30.1, None if answers is None else SAME)
    repeat(store, 1, 0.31, 45.0)


@pytest.fixture
def identity() -> StudyIdentity:
    return IDENTITY


@pytest.fixture
def fill() -> Callable[[Store, StudyIdentity], None]:
    return add_night


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "tuner.db", create=True)


@pytest.fixture
def store(empty: Store, identity: StudyIdentity) -> Store:
    add_night(empty, identity)
    return empty
