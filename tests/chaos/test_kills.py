"""`kill -9` of the tuner at seeded instants of a night, and `tuner resume` after each."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from helpers.chaos.harness import Night, kill_in, kill_until_done, night_in

NIGHTS = 2


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> object:
    """The front of a night in which nobody killed anything."""
    with night_in(tmp_path_factory.mktemp("undisturbed")) as night:
        code, errors = night.run()
        assert code == 0, errors
        night.assert_complete()
        return night.front()


@pytest.mark.night
def test_a_night_of_three_trials_with_one_kill(tmp_path: Path) -> None:
    with night_in(tmp_path, trials=3) as night:
        kill_in(night, random.Random(3), ("tell",))
        night.assert_complete()


@pytest.mark.vllm
@pytest.mark.skipif("TUNER_VLLM" not in os.environ, reason="TUNER_VLLM names no vllm")
@pytest.mark.timeout(3000)
def test_a_night_on_a_real_vllm_with_a_few_kills(tmp_path: Path) -> None:
    with night_in(tmp_path, trials=3) as night:
        night.be_served_by(os.environ["TUNER_VLLM"])
        kill_in(night, random.Random(0), ("launch", "measure", "tell", "restore"))
        night.assert_complete(retries=night.tried_again())


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(NIGHTS))
def test_a_night_with_kills_ends_as_one_without(
    tmp_path: Path, seed: int, undisturbed: object
) -> None:
    with night_in(tmp_path) as night:
        kill_until_done(night, seed)
        assert night.front() == undisturbed
        report(seed, night)


def report(seed: int, night: Night) -> None:
    where = ", ".join(f"{count} in {phase}" for phase, count in sorted(night.killed_in.items()))
    print(f"seed {seed}: {night.kills} kills ({where}), front of {len(night.front())}")
