"""Shared prefixes, turns and arrivals of synthetic workloads."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tuner.load.summary import shared_prompt_share
from tuner.load.workload import Workload, WorkloadSpec, load_workload
from tuner.load.workload_spec import FIRST_TOKEN_ID
from tuner.records import Request

BASE = {
    "description": "for a test",
    "prompt_tokens": {"distribution": "uniform", "min": 4, "max": 40},
    "output_tokens": {"distribution": "uniform", "min": 1, "max": 30},
    "load": {"concurrency": 2},
    "vocab_size": 512,
}
SHIPPED = {
    "chat": "1b6f3ac5bff75608f438ee31a6b86edebfe4e82d2894cf4c0d1b508426bdb22a",
    "code": "f820219bfed818eb1ab4b2a598c2fca235856f405c1cfb7112afb4b7983c08a1",
    "reasoning": "455c1626060c66e20048fc7ccc25a6ac023c1e68cad758a4fff5232c768433c2",
    "smoke": "ce9a64ff049f2ce5a070d079c02953d1a8970afcc25e91f15bb998b029afde6c",
}


def made(**changes: object) -> Workload:
    return Workload("made", WorkloadSpec.model_validate(BASE | changes))


def take(workload: Workload, count: int) -> list[Request]:
    return list(islice(workload.requests(), count))


def ids(requests: list[Request]) -> list[list[int]]:
    return [r.prompt_token_ids.tolist() for r in requests]


@pytest.mark.parametrize(("name", "sha256"), SHIPPED.items())
def test_a_file_without_the_options_is_what_it_always_was(name: str, sha256: str) -> None:
    """Stores of earlier studies hold these: a change makes them impossible to resume."""
    assert load_workload(name).sha256 == sha256


def test_what_is_written_as_it_is_by_default_changes_nothing() -> None:
    assert made(load={"concurrency": 2, "arrivals": "poisson"}).sha256 == made().sha256
    assert made(turns=None, shared_prefix=None, trace=None).sha256 == made().sha256


@pytest.mark.parametrize(
    "change",
    [
        {"shared_prefix": {"tokens": 8}},
        {"shared_prefix": {"tokens": 9}},
        {"shared_prefix": {"tokens": 8, "groups": 2}},
        {"turns": {"mean": 2, "max": 4}},
        {"turns": {"mean": 2, "max": 5}},
        {"load": {"concurrency": 2, "arrivals": "constant"}},
        {"load": {"concurrency": 2, "arrivals": {"gamma": 0.5}}},
    ],
)
def test_each_option_changes_the_hash(change: dict[str, object]) -> None:
    assert made(**change).sha256 not in (made().sha256, made(seed=1, **change).sha256)
    assert made(**change).sha256 == made(**change).sha256


def test_other_arrivals_leave_the_prompts_alone() -> None:
    plain = take(made(), 200)
    for arrivals, variation in (("constant", 0.0), ({"gamma": 0.25}, 2.0)):
        other = take(made(load={"concurrency": 2, "arrivals": arrivals}), 200)
        assert ids(other) == ids(plain)
        assert [r.output_tokens for r in other] == [r.output_tokens for r in plain]
        gaps_s = np.diff([r.arrival_s for r in other])
        assert gaps_s.std() == pytest.approx(variation, abs=0.5)


@settings(deadline=None, max_examples=25)
@given(st.integers(4, 60), st.integers(1, 5), st.integers(0, 2**40))
def test_a_shared_prefix_is_shared_and_nothing_else_is(tokens: int, groups: int, seed: int) -> None:
    workload = made(shared_prefix={"tokens": tokens, "groups": groups}, seed=seed)
    prompts = ids(take(workload, 300))
    prefixes = {tuple(p[:tokens]) for p in prompts}
    assert len(prefixes) == groups
    # Two prefixes differ in their first four tokens, two prompts in the four after the prefix.
    assert len({p[:4] for p in prefixes}) == groups
    assert len({tuple(p[tokens : tokens + 4]) for p in prompts}) == 300
    assert {min(p) >= FIRST_TOKEN_ID and max(p) < 512 for p in prompts} == {True}
    assert max(map(len, prompts)) + 30 <= workload.max_request_tokens == tokens + 40 + 30


def test_groups_are_equally_frequent() -> None:
    prompts = ids(take(made(shared_prefix={"tokens": 4, "groups": 4}), 4000))
    _, counts = np.unique([p[:4] for p in prompts], axis=0, return_counts=True)
    assert counts.min() > 900


def conversations(requests: list[Request], prefix: int) -> list[list[Request]]:
    found: dict[tuple[int, ...], list[Request]] = {}
    for request in requests:
        key = tuple(request.prompt_token_ids[prefix : prefix + 4].tolist())
        found.setdefault(key, []).append(request)
    return list(found.values())


@settings(deadline=None, max_examples=25)
@given(
    mean=st.floats(1.0, 4.0),
    more=st.integers(0, 3),
    under_way=st.integers(1, 20),
    prefix=st.sampled_from([0, 8]),
    limit=st.sampled_from([None, 150]),
    seed=st.integers(0, 2**40),
)
def test_turns_carry_all_that_was_said_before(
    mean: float, more: int, under_way: int, prefix: int, limit: int | None, seed: int
) -> None:
    turns = {
        "mean": mean,
        "max": 4 + more,
        "conversations": under_way,
        "max_prompt_tokens": limit,
    }
    shared = {"tokens": prefix, "groups": 2} if prefix else None
    workload = made(turns=turns, shared_prefix=shared, seed=seed)
    requests = take(workload, 200)
    assert ids(take(workload, 200)) == ids(requests)
    assert [r.request_id for r in requests] == list(range(200))
    assert all(a.arrival_s <= b.arrival_s for a, b in pairwise(requests))
    for talk in conversations(requests, prefix):
        assert len(talk) <= 4 + more
        for before, after in pairwise(talk):
            assert after.request_id - before.request_id == under_way
            said = before.prompt_token_ids
            assert (after.prompt_token_ids[: len(said)] == said).all()
            added = len(after.prompt_token_ids) - len(said) - before.output_tokens
            assert 4 <= added <= 40
    for request in requests:
        total = len(request.prompt_token_ids) + request.output_tokens
        assert total <= workload.max_request_tokens
        assert limit is None or len(request.prompt_token_ids) <= limit


def test_the_number_of_turns_has_its_mean() -> None:
    workload = made(turns={"mean": 3, "max": 100, "conversations": 8})
    lengths = [len(talk) for talk in conversations(take(workload, 8_000), 0)]
    assert np.mean(lengths) == pytest.approx(3.0, rel=0.06)
    assert min(lengths) == 1


def test_turns_make_a_prefix_cache_worth_having() -> None:
    long = {"distribution": "constant", "value": 64}
    alone = made(prompt_tokens=long)
    talks = made(prompt_tokens=long, turns={"mean": 4, "max": 8, "conversations": 4})
    assert shared_prompt_share(take(alone, 200)) == 0.0
    assert shared_prompt_share(take(talks, 200)) > 0.4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"turns": {"mean": 5, "max": 4}}, "mean 5 is more than max 4"),
        ({"turns": {"mean": 2, "max": 4, "max_prompt_tokens": 39}}, "less than a first prompt"),
        ({"shared_prefix": {"tokens": 3}}, "greater than or equal to 4"),
        ({"prompt_tokens": None}, "prompt_tokens missing"),
        ({"load": {"concurrency": 1, "arrivals": "trace"}}, "there is no trace"),
        ({"load": {"concurrency": 1, "arrivals": "uniform"}}, "arrivals"),
        ({"trace": {"file": "a.jsonl"}}, "a trace has its own prompt_tokens, output_tokens"),
        ({"trace": {"file": "a.csv"}}, "ends in .jsonl.gz"),
        ({"trace": {"file": "/a.jsonl"}}, "beside the YAML file"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        made(**change)
