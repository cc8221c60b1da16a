"""What the default says of each card, and which card is unlike the others."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from helpers.scripted import measurement
from helpers.testbed import OWNER

from tuner.analysis.cards.figures import card_figures, on_mean_card, without_noise
from tuner.analysis.cards.workers import worker_states
from tuner.analysis.outcomes import energy_j
from tuner.configuration import Configuration
from tuner.store import ProbeKind, RepeatRow, TrialRow, TrialState

ENERGY = "energy_per_output_token_j"
AT = datetime(2026, 1, 1, tzinfo=UTC)


def trial(number: int, card: str, energy_j: float, *, baseline: bool = False) -> TrialRow:
    return TrialRow(
        number=number,
        configuration=Configuration(),
        baseline=baseline,
        state=TrialState.MEASURED,
        measurement=measurement(**{ENERGY: energy_j, "mean_tpot_ms": 10.0}),
        failure=None,
        warnings=(),
        started_at=AT,
        ended_at=AT,
        owner=replace(OWNER, card=card),
    )


def probe(number: int, card: str, energy_j: float, tpot_ms: float = 10.0) -> RepeatRow:
    return RepeatRow(
        number=number,
        trial=0,
        kind=ProbeKind.CARD,
        state=TrialState.MEASURED,
        measurement=measurement(**{ENERGY: energy_j, "mean_tpot_ms": tpot_ms}),
        failure=None,
        warnings=(),
        started_at=AT,
        ended_at=AT,
        owner=replace(OWNER, card=card),
    )


def test_trials_of_different_cards_compare_as_if_one_had_measured_them() -> None:
    factors = {"a": 1.0, "b": 1.08, "c": 0.95}
    trials = [trial(0, "a", 0.2, baseline=True)]
    trials += [trial(k, card, 0.15 * f) for k, (card, f) in enumerate(factors.items(), 1)]
    probes = [probe(0, "b", 0.2 * 1.08), probe(1, "c", 0.2 * 0.95)]
    figures = card_figures(trials, probes)
    assert [one.card for one in figures] == ["a", "b", "c"]
    assert all(one.outlier is None for one in figures)
    assert figures[1].energy_factor / figures[0].energy_factor == pytest.approx(1.08)
    first, *others = [energy_j(t) for t in on_mean_card(trials[1:], figures)]
    assert others == pytest.approx([first, first])


def test_a_card_that_is_unlike_the_others_is_named_and_moves_no_mean() -> None:
    trials = [trial(0, "a", 0.2, baseline=True)]
    probes = [probe(0, "b", 0.204), probe(1, "c", 0.3), probe(2, "d", 0.198, tpot_ms=14.0)]
    figures = {one.card: one for one in card_figures(trials, probes)}
    assert figures["c"].outlier == "+49 % energy beside the other cards"
    assert figures["d"].outlier == "+40 % time per token beside the other cards"
    assert figures["a"].outlier is None and figures["a"].energy_factor == pytest.approx(0.99, 0.01)


def test_of_two_cards_none_is_an_outlier() -> None:
    figures = card_figures([trial(0, "a", 0.2, baseline=True)], [probe(0, "b", 0.3)])
    assert [one.outlier for one in figures] == [None, None]


def test_what_each_card_does() -> None:
    running = replace(trial(4, "a", 1.0), state=TrialState.RUNNING, measurement=None, ended_at=None)
    later = replace(running, started_at=datetime(2026, 1, 1, 0, 1, tzinfo=UTC))
    now = datetime(2026, 1, 1, 0, 3, tzinfo=UTC)
    first, second = worker_states(
        [trial(0, "a", 1.0, baseline=True), later], [probe(0, "b", 1.0)], now
    )
    assert (first.card, first.runs, first.for_s, first.measured) == ("a", "trial 4", 120.0, 1)
    assert (second.card, second.runs, second.measured) == ("b", None, 1)
    assert worker_states([], [], now) == []


def test_the_model_says_what_a_lucky_window_took() -> None:
    lucky, other = trial(1, "a", 0.95), trial(2, "b", 1.01)
    expected = without_noise([lucky, other], {1: math.log(1.0)})
    assert [energy_j(t) for t in expected] == pytest.approx([1.0, 1.01])
    assert expected[0].measurement is not None and lucky.measurement is not None
    assert expected[0].measurement.metrics["mean_tpot_ms"] == 10.0
    assert lucky.measurement.metrics[ENERGY] == 0.95
