from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from tuner.analysis.matching import candidates, match_model
from tuner.errors import UsageError
from tuner.store import StudyIdentity

MODELS = ["meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-70B", "/models/qwen/", "Llama-3.1-8B-x"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),  # though it is part of another
        ("Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("llama-3.1-70b", "meta-llama/Llama-3.1-70B"),
        ("/models/qwen", "/models/qwen/"),
        ("qwen", "/models/qwen/"),
        ("70B", "meta-llama/Llama-3.1-70B"),
    ],
)
def test_a_name_finds_its_model(name: str, meant: str) -> None:
    assert match_model(name, MODELS) == meant


def test_a_name_that_may_be_several_lists_them() -> None:
    with pytest.raises(UsageError, match=r"may be any of: .*3.1-70B, .*3.1-8B"):
        match_model("meta", MODELS)


@pytest.mark.parametrize("name", ["mistral", ""])
def test_an_unknown_model_lists_those_in_the_store(name: str) -> None:
    with pytest.raises(UsageError, match=r"it holds: .*qwen.*Llama-3.1-70B"):
        match_model(name, MODELS)


def named(identity: StudyIdentity, name: str, days: int, finished: bool = True) -> StudyIdentity:
    created = identity.created_at + timedelta(days=days)
    ended = created + timedelta(hours=8) if finished else None
    return replace(identity, name=name, created_at=created, finished_at=ended)


def test_finished_studies_come_first_then_the_newest(identity: StudyIdentity) -> None:
    found = candidates(
        [
            named(identity, "old", 0),
            named(identity, "new", 1),
            named(identity, "open", 2, finished=False),
        ],
        None,
        None,
    )
    assert [s.name for s in found] == ["new", "old", "open"]


def test_with_several_models_one_has_to_be_named(identity: StudyIdentity) -> None:
    one = named(identity, "a", 0)
    two = named(replace(identity, model="qwen"), "b", 0)
    with pytest.raises(UsageError, match="several models"):
        candidates([one, two], None, None)
    assert candidates([one, two], "qwen", None) == [two]
    assert candidates([one, two], None, "a") == [one]


def test_names_that_mean_nothing_are_refused(identity: StudyIdentity) -> None:
    with pytest.raises(UsageError, match="no study yet"):
        candidates([], None, None)
    with pytest.raises(UsageError, match="did you mean 'night'"):
        candidates([named(identity, "night", 0)], None, "nihgt")
