"""Energy per correct answer: that of a request over the share of right answers."""

from __future__ import annotations

import pytest
from helpers.records import OWNER, measured
from helpers.stored_study import measurement

from tuner.analysis.recommendation.recommend import recommend
from tuner.records import Source, Timing
from tuner.store import RepeatKind, Store


def graded(store: Store, trial: int, energy_j: float, right: int | None) -> None:
    kind = RepeatKind.BASELINE if trial == 0 else RepeatKind.CONFIRMATION
    number = store.repeats.begin("night", trial, kind, OWNER, None)
    found = measurement(energy_j, 40.0, 5000.0, Source.MEASURED)
    found = measured({**found.metrics, "energy_per_request_j": 400.0 * energy_j})
    grades = None if right is None else tuple(n < right for n in range(100))
    store.repeats.save("night", number, found, None, timing=Timing(90.0, 30.0), grades=grades)


@pytest.mark.parametrize(("right", "expected_j"), [(80, 100.0 / 0.8), (None, None), (0, None)])
def test_wrong_answers_cost_energy_too(
    store: Store, right: int | None, expected_j: float | None
) -> None:
    for _ in range(4):
        graded(store, 0, 0.4, right)
        graded(store, 2, 0.25, right)
    found = recommend(store)
    assert found.best.number == 2
    energy_j = found.energy_per_correct_j(found.best)
    assert energy_j == (None if expected_j is None else pytest.approx(expected_j))
