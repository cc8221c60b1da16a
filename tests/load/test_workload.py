from __future__ import annotations

import subprocess
import sys
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.catalog.shipped import shipped_folder
from tuner.errors import UsageError
from tuner.load.workload import FIRST_TOKEN_ID, Workload, WorkloadSpec, load_workload
from tuner.records import Load, Request

SMALL = {
    "description": "for a test",
    "prompt_tokens": {"distribution": "uniform", "min": 4, "max": 6},
    "output_tokens": {"distribution": "uniform", "min": 1, "max": 3},
    "load": {"concurrency": 2},
    "vocab_size": 512,
}


def small(**changes: object) -> Workload:
    return Workload("small", WorkloadSpec.model_validate(SMALL | changes))


def take(workload: Workload, count: int) -> list[Request]:
    return list(islice(workload.requests(), count))


def facts(requests: list[Request]) -> list[tuple[int, float, list[int], int]]:
    return [
        (r.request_id, r.arrival_s, r.prompt_token_ids.tolist(), r.output_tokens) for r in requests
    ]


@pytest.mark.parametrize(
    ("name", "mean", "p50", "p99"),
    [("chat", 642, 452, 2488), ("code", 250, 112, 2028), ("reasoning", 7586, 6396, 21648)],
)
def test_shipped_output_lengths_match_the_stated_figures(
    name: str, mean: float, p50: float, p99: float
) -> None:
    requests = take(load_workload(name), 10_000)
    outputs = np.array([r.output_tokens for r in requests])
    assert outputs.mean() == pytest.approx(mean, rel=0.02)
    assert np.median(outputs) == pytest.approx(p50, rel=0.04)
    assert np.percentile(outputs, 99) == pytest.approx(p99, rel=0.04)


@pytest.mark.parametrize(
    ("name", "mean", "p50"), [("chat", 1155, 1020), ("code", 1987, 1500), ("reasoning", 200, 170)]
)
def test_shipped_prompt_lengths_match_the_stated_figures(name: str, mean: float, p50: int) -> None:
    prompts = np.array([len(r.prompt_token_ids) for r in take(load_workload(name), 5_000)])
    assert prompts.mean() == pytest.approx(mean, rel=0.03)
    assert np.median(prompts) == pytest.approx(p50, rel=0.03)


def test_every_shipped_file_is_a_workload_with_its_sources() -> None:
    names = {path.stem for path in shipped_folder("workloads").glob("*.yaml")}
    assert names >= {"chat", "code", "reasoning", "smoke"}
    for name in names:
        workload = load_workload(name)
        assert workload.name == name
        assert workload.spec.sources


def test_smoke_is_small_enough_for_a_cpu() -> None:
    smoke = load_workload("smoke")
    assert smoke.default_load == Load(concurrency=8)
    assert smoke.max_request_tokens == 32 + 24
    assert max(int(r.prompt_token_ids.max()) for r in take(smoke, 500)) < 512


specs = st.builds(
    lambda seed, low, more, vocab: small(
        seed=seed,
        prompt_tokens={"distribution": "uniform", "min": low, "max": low + more},
        vocab_size=vocab,
    ),
    st.integers(0, 2**63),
    st.integers(4, 12),
    st.integers(0, 40),
    st.integers(512, 200_000),
)


@settings(deadline=None, max_examples=30)
@given(specs)
def test_the_stream_keeps_its_laws(workload: Workload) -> None:
    requests = take(workload, 300)
    spec = workload.spec
    assert [r.request_id for r in requests] == list(range(300))
    assert all(a.arrival_s <= b.arrival_s for a, b in pairwise(requests))
    assert requests[0].arrival_s >= 0
    assert len({r.prompt_token_ids.tobytes() for r in requests}) == 300
    for request in requests:
        prompt = request.prompt_token_ids
        assert prompt.dtype == np.int32
        assert spec.prompt_tokens.min <= len(prompt) <= spec.prompt_tokens.max
        assert spec.output_tokens.min <= request.output_tokens <= spec.output_tokens.max
        assert FIRST_TOKEN_ID <= prompt.min() <= prompt.max() < spec.vocab_size
        assert len(prompt) + request.output_tokens <= workload.max_request_tokens


@settings(deadline=None, max_examples=20)
@given(specs)
def test_the_same_spec_gives_the_same_stream(workload: Workload) -> None:
    again = Workload("again", workload.spec)
    assert facts(take(again, 130)) == facts(take(workload, 130)) == facts(take(workload, 130))
    assert again.sha256 == workload.sha256


@given(st.integers(0, 1000), st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_another_seed_gives_another_stream(one: int, other: int) -> None:
    same = facts(take(small(seed=one), 64)) == facts(take(small(seed=other), 64))
    assert same is (one == other)


def test_the_shortest_prompts_of_the_smallest_vocabulary_do_not_repeat() -> None:
    # More than 256**2, so that the third counting token changes too.
    shortest = small(prompt_tokens={"distribution": "constant", "value": 4})
    prompts = {r.prompt_token_ids.tobytes() for r in islice(shortest.requests(), 70_000)}
    assert len(prompts) == 70_000


def test_neighbours_share_no_prefix() -> None:
    requests = take(small(), 256)
    assert len({int(r.prompt_token_ids[0]) for r in requests}) == 256


def test_arrivals_are_poisson_at_one_per_second() -> None:
    arrivals_s = np.array([r.arrival_s for r in take(small(), 20_000)])
    gaps_s = np.diff(arrivals_s)
    assert gaps_s.mean() == pytest.approx(1.0, rel=0.03)
    assert gaps_s.std() == pytest.approx(1.0, rel=0.05)
    assert (gaps_s > 1.0).mean() == pytest.approx(np.exp(-1.0), rel=0.04)


def test_what_is_not_kept_is_drawn_again_the_same() -> None:
    # Prompts this long fill the memory for kept requests after two blocks.
    lengths = {"distribution": "quantiles", "min": 4, "max": 2**20, "percentiles": {99.9: 8}}
    workload = small(prompt_tokens=lengths)
    assert facts(take(workload, 200)) == facts(take(workload, 200))


def test_prompts_cannot_be_changed() -> None:
    prompt = take(small(), 1)[0].prompt_token_ids
    with pytest.raises(ValueError, match="read-only"):
        prompt[0] = 1


def test_the_hash_follows_what_is_sent_and_not_the_prose() -> None:
    base = small().sha256
    assert small(description="other words", sources=["x"]).sha256 == base
    for change in (
        {"seed": 1},
        {"vocab_size": 600},
        {"output_tokens": {"distribution": "constant", "value": 2}},
        {"load": {"concurrency": 3}},
    ):
        assert small(**change).sha256 != base


def test_the_hash_is_the_same_in_another_process() -> None:
    script = "from tuner.load.workload import load_workload as w; print(w('chat').sha256)"
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert told.strip() == load_workload("chat").sha256


def test_an_open_load() -> None:
    assert small(load={"request_rate": 2.5}).default_load == Load(request_rate=2.5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"load": {}}, ["load", "concurrency", "request_rate"]),
        ({"load": {"concurrency": 2, "request_rate": 1}}, ["load", "either"]),
        ({"load": {"concurrency": 0}}, ["load.concurrency", "found 0", "greater than or equal"]),
        ({"load": {"concurency": 2}}, ["load.concurency", "no such field"]),
        (
            {"prompt_tokens": {"distribution": "constant", "value": 2}},
            ["prompt_tokens", "at least 4", "found 2"],
        ),
        ({"prompt_tokens": {"distribution": "normal"}}, ["prompt_tokens", "normal", "lognormal"]),
        ({"vocab_size": 300}, ["vocab_size", "found 300", "512"]),
        ({"seeds": 1}, ["seeds", "no such field"]),
    ],
)
def test_errors_name_file_field_found_and_allowed(
    tmp_path: Path, change: dict[str, object], says: list[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(SMALL | change), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        load_workload(str(path))
    for words in [str(path), *says]:
        assert words in str(caught.value)


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'chat'"):
        load_workload("caht")
