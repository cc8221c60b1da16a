from __future__ import annotations

import random
from dataclasses import replace

import pytest
from helpers.records import measured, trial_row

from tuner.analysis.report_data.knob_importance import importance, knob_names
from tuner.configuration import Configuration, Value
from tuner.store import TrialRow

METRIC = "energy_per_output_token_j"


def trial(number: int, energy_j: float, **flags: Value) -> TrialRow:
    return trial_row(number, measured({METRIC: energy_j}), Configuration(flags=flags))


@pytest.fixture
def trials() -> list[TrialRow]:
    chance = random.Random(0)
    found = [trial(0, 0.4)]
    for number in range(1, 201):
        limit_w = chance.choice([300, 400, 500, 600])
        energy_j = limit_w / 1000.0 * chance.uniform(0.9, 1.1)
        found.append(
            trial(
                number,
                energy_j,
                limit=limit_w,
                share=chance.uniform(0.0, 1.0),
                kind=chance.choice("ab"),
                same=7,
            )
        )
    return found


def test_the_knob_that_decides_explains_most_and_the_others_next_to_nothing(
    trials: list[TrialRow],
) -> None:
    found = importance(trials, METRIC)
    assert next(iter(found)) == "limit"
    assert 0.9 < found["limit"] < 1.0
    assert found["share"] < 0.1
    assert found["kind"] < 0.1


def test_a_smooth_effect_of_a_continuous_knob_is_seen() -> None:
    shares = [k / 99 for k in range(100)]
    rows = [trial(k + 1, 0.1 + share, share=share) for k, share in enumerate(shares)]
    assert importance(rows, METRIC)["share"] > 0.9


def test_knobs_that_never_change_are_left_out(trials: list[TrialRow]) -> None:
    assert knob_names(trials) == ["limit", "share", "kind"]
    assert "same" not in importance(trials, METRIC)


def test_too_few_or_unmeasured_trials_say_nothing(trials: list[TrialRow]) -> None:
    assert importance(trials[:7], METRIC) == {}
    assert importance([replace(t, measurement=None) for t in trials], METRIC) == {}
    assert importance(trials, "p99_ttft_ms") == {}
