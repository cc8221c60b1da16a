from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.load.summary import (
    histogram,
    length_histogram,
    output_lengths,
    shared_prompt_share,
    spread,
    summarize,
)
from tuner.load.workload import load_workload
from tuner.records import Request


def prompt(*tokens: int) -> Request:
    return Request(0, 0.0, np.array(tokens, dtype=np.int32), 1)


def test_the_output_lengths_alone_are_those_of_the_summary() -> None:
    workload = load_workload("chat")
    assert output_lengths(workload).tolist() == summarize(workload).output_tokens.tolist()


def test_the_summary_of_a_shipped_workload() -> None:
    summary = summarize(load_workload("smoke"), 500)
    assert summary.requests == 500
    assert summary.prompt_tokens.min() >= 16
    assert summary.output_tokens.max() <= 24
    assert summary.gap_variation == pytest.approx(1.0, rel=0.15)
    assert summary.shared_prompt_share == 0.0


def test_what_is_shared_are_whole_blocks_of_prefixes() -> None:
    block = range(16)
    requests = [prompt(*block, *range(20, 36)), prompt(*block, *range(50, 66), 1)]
    assert shared_prompt_share(requests) == 16 / 65
    # The same tokens elsewhere than at the beginning are no prefix.
    assert shared_prompt_share([prompt(*block), prompt(*range(16, 32), *block)]) == 0.0
    assert shared_prompt_share([prompt(*range(15))] * 2) == 0.0


def test_the_spread_of_known_numbers() -> None:
    found = spread(np.arange(101.0))
    assert (found.mean, found.min, found.p50, found.p90, found.p99, found.max) == (
        50.0,
        0.0,
        50.0,
        90.0,
        99.0,
        100.0,
    )


@settings(deadline=None)
@given(st.lists(st.integers(1, 2**20), min_size=1, max_size=50), st.integers(1, 20))
def test_every_length_is_in_the_bar_that_names_it(lengths: list[int], bars: int) -> None:
    found = length_histogram(np.array(lengths, dtype=np.float64), bars)
    assert len(found) <= bars
    for bar in found:
        assert bar.low <= bar.high
        assert bar.count == sum(bar.low <= length <= bar.high for length in lengths)
    assert sum(bar.count for bar in found) == len(lengths)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.integers(1, 20))
def test_every_value_is_in_a_bar(values: list[float], bars: int) -> None:
    found = histogram(np.array(values), bars)
    assert len(found) <= bars
    assert sum(bar.count for bar in found) == len(values)
    assert (found[0].low, found[-1].high) == (min(values), max(values))
