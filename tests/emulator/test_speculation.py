"""Speculation on the emulator: what drafts cost, what they save, and where that ends."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tuner
from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration, Value
from tuner.emulator.engine.engine import Engine
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.launch_rules import resolve
from tuner.emulator.refusal import LaunchRefusedError
from tuner.emulator.speculation import Speculation, speculation_of
from tuner.emulator.virtual import engine_for
from tuner.errors import UsageError

LLAMA, H200 = load_model("meta-llama/Llama-3.1-8B-Instruct"), load_gpu("H200-SXM")
MTP: dict[str, Value] = {
    "speculative_config.method": "mtp",
    "speculative_config.num_speculative_tokens": 3,
}


def after(flags: dict[str, Value], streams: int, acceptance: float | None = None) -> Engine:
    """Return an engine that has answered so many streams of 200 tokens."""
    rates = None if acceptance is None else {"mtp": acceptance}
    configuration = Configuration(flags=flags)
    engine = engine_for(LLAMA, H200, configuration, seed=0, noise=False, acceptance=rates)
    for number in range(streams):
        engine.submit(Sequence(number, 100, 200))
    while engine.running or engine.waiting:
        engine.advance(1e9)
    return engine


def energy_j(flags: dict[str, Value], streams: int, acceptance: float | None = None) -> float:
    return after(flags, streams, acceptance).energy_j / streams


@given(st.integers(1, 16), st.floats(0.0, 0.99))
def test_a_step_yields_what_the_formula_says(depth: int, acceptance: float) -> None:
    found = Speculation("ngram", depth, acceptance)
    assert found.tokens == pytest.approx((1 - acceptance ** (depth + 1)) / (1 - acceptance))
    assert 1.0 <= found.tokens <= depth + 1


def test_acceptance_by_position_is_measured_as_the_workload_says_it() -> None:
    flags = {"speculative_config.method": "ngram", "speculative_config.num_speculative_tokens": 3}
    options = {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "emulate": "H200-SXM",
        "workload": "chat",
        "concurrency": 4,
        "window_s": 10.0,
        "trials": 1,
    }
    found = tuner.measure(flags, tuner.study_spec(options=options)).measurement.metrics
    at = [found[f"draft_acceptance_rate_pos_{position}"] for position in range(3)]
    assert at == pytest.approx([0.5, 0.25, 0.125])
    assert found["mean_acceptance_length"] == pytest.approx(1.0 + sum(at))
    assert "draft_acceptance_rate_pos_3" not in found


def test_more_accepted_drafts_cost_less() -> None:
    rising = [energy_j(MTP, 1, acceptance) for acceptance in (0.0, 0.3, 0.6, 0.9)]
    assert all(more > less for more, less in itertools.pairwise(rising))
    assert rising[0] > energy_j({}, 1) > rising[-1]


def test_the_gain_is_gone_where_the_batch_is_large() -> None:
    gains = [energy_j(MTP, streams) / energy_j({}, streams) for streams in (1, 8, 128)]
    assert gains[0] < gains[1] < gains[2]
    assert gains[0] < 0.6


def test_all_tokens_are_made_and_a_draft_takes_memory() -> None:
    assert after(MTP, 4).counters.generation_tokens == 800
    plain, drafting = resolve(LLAMA, H200, {}), resolve(LLAMA, H200, MTP)
    assert drafting.kv_blocks < plain.kv_blocks
    assert drafting.async_scheduling
    ngram = {**MTP, "speculative_config.method": "ngram"}
    assert not resolve(LLAMA, H200, ngram).async_scheduling  # vLLM switches it off
    model = {**MTP, "speculative_config.method": "draft_model"}
    small = {**model, "speculative_config.model": "meta-llama/Llama-3.2-1B-Instruct"}
    found = speculation_of(LLAMA, small)
    assert found is not None and found.draft is not None
    assert found.draft.parameters < LLAMA.parameters


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UsageError, match="unknown emulated speculative method 'medusa'"):
        speculation_of(LLAMA, {"speculative_config.method": "medusa"})
    with pytest.raises(LaunchRefusedError, match="num_speculative_tokens must be provided"):
        speculation_of(LLAMA, {"speculative_config.method": "ngram"})
    with pytest.raises(UsageError, match=r"unknown emulated flag 'speculative_config\.depth'"):
        resolve(LLAMA, H200, {"speculative_config.depth": 3})
