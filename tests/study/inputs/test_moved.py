"""A resumed study goes on with other cards, where its figures compare with theirs."""

from __future__ import annotations

import pytest

from tuner.errors import UsageError
from tuner.spec.study import StudySpec
from tuner.study.inputs.moved import MovedTo


def spec(**changes: object) -> StudySpec:
    return StudySpec.model_validate({"model": "m", "trials": 4, **changes})


@pytest.mark.parametrize(
    ("before", "moved", "after"),
    [
        ({"cards": 4}, MovedTo(cards="8"), (8, None)),
        ({"cards": 4}, MovedTo(gpus="all"), ("all", None)),
        ({"cards": 4}, MovedTo(), (4, None)),
        ({"cards": 4}, MovedTo(ray="head:6379"), (4, "head:6379")),
        ({"ray": "old:6379"}, MovedTo(ray="new:6379"), (None, "new:6379")),
        ({"ray": "old:6379"}, MovedTo(cards=2), (2, "old:6379")),
        ({"ray": "old:6379"}, MovedTo(ray="none"), ("all", None)),
        ({"cards": 4, "gpus": 2}, MovedTo(cards=2, gpus="2"), (2, None)),
    ],
)
def test_other_workers(
    before: dict[str, object], moved: MovedTo, after: tuple[object, object]
) -> None:
    found = moved.applied_to(spec(**before))
    assert (found.cards, found.ray) == after


@pytest.mark.parametrize(
    ("before", "moved", "why"),
    [
        ({}, MovedTo(cards="8"), "measured on one card"),
        ({}, MovedTo(ray="head:6379"), "measured on one card"),
        ({"cards": 4}, MovedTo(gpus="2"), "has 1, and"),
        ({"cards": 4}, MovedTo(cards="many"), "cards"),
    ],
)
def test_workers_that_do_not_compare_are_refused(
    before: dict[str, object], moved: MovedTo, why: str
) -> None:
    with pytest.raises(UsageError, match=why):
        moved.applied_to(spec(**before))
