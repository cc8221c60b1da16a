"""Stratified draws: blocks last and ask for what was asked, with the distribution kept."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.load.arrivals import Arrivals, Gamma
from tuner.load.draws import IndependentDraws, StratifiedDraws
from tuner.load.lengths import Constant, Lengths, Lognormal, Quantiles, Uniform
from tuner.load.workload import load_workload

LENGTHS: list[Lengths] = [
    Constant(distribution="constant", value=300),
    Uniform(distribution="uniform", min=100, max=900),
    Lognormal(distribution="lognormal", median=300, p99=4000, min=4, max=3000),
    Quantiles(
        distribution="quantiles", min=10, max=5000, percentiles={50: 452, 90: 1300, 99: 2488}
    ),
]


@pytest.mark.parametrize("of", LENGTHS, ids=lambda of: of.distribution)
@pytest.mark.parametrize("block", [30, 360])
def test_every_block_asks_for_the_mean_number_of_tokens(of: Lengths, block: int) -> None:
    rng = np.random.default_rng(1)
    drawn = StratifiedDraws(block).lengths(of, rng, 4 * block).reshape(4, block)
    mean = of.draw(np.random.default_rng(2), 400_000).mean()
    assert np.ptp(drawn.sum(axis=1)) == 0
    assert drawn[0].mean() == pytest.approx(mean, rel=0.01)
    assert not (drawn[0] == drawn[1]).all() or np.ptp(drawn) == 0


@pytest.mark.parametrize("of", LENGTHS, ids=lambda of: of.distribution)
def test_stratified_lengths_have_the_distribution(of: Lengths) -> None:
    drawn = np.sort(StratifiedDraws(1000).lengths(of, np.random.default_rng(1), 1000))
    independent = np.sort(of.draw(np.random.default_rng(2), 100_000))
    shares = [0.05, 0.25, 0.5, 0.75, 0.95]
    assert np.quantile(drawn, shares) == pytest.approx(np.quantile(independent, shares), rel=0.05)
    assert of.min <= drawn[0]
    assert drawn[-1] <= of.max


@pytest.mark.parametrize("arrivals", ["poisson", "constant", Gamma(gamma=0.4), Gamma(gamma=1.0)])
def test_a_block_of_gaps_lasts_as_many_mean_gaps(arrivals: Arrivals) -> None:
    gaps_s = StratifiedDraws(200).gaps_s(arrivals, np.random.default_rng(3), 200)
    independent_s = IndependentDraws().gaps_s(arrivals, np.random.default_rng(3), 100_000)
    assert gaps_s.sum() == pytest.approx(200.0)
    assert gaps_s.std() == pytest.approx(independent_s.std(), rel=0.12, abs=1e-9)


@given(st.integers(1, 50), st.integers(1, 200))
def test_part_of_a_block_may_be_drawn(block: int, count: int) -> None:
    draws = StratifiedDraws(block)
    assert draws.lengths(LENGTHS[2], np.random.default_rng(0), count).size == count
    assert draws.gaps_s("poisson", np.random.default_rng(0), count).size == count


@pytest.mark.parametrize("name", ["chat", "code", "reasoning"])
def test_every_window_is_offered_what_was_asked(name: str) -> None:
    rate, window_s = 4.0, 180.0
    workload = load_workload(name)
    block = round(rate * window_s / 2)
    requests = list(islice(workload.representative(block).requests(), 10 * block))
    assert workload.spec.prompt_tokens is not None
    assert workload.spec.output_tokens is not None
    rng = np.random.default_rng(9)
    prompt = workload.spec.prompt_tokens.draw(rng, 400_000).mean()
    output = workload.spec.output_tokens.draw(rng, 400_000).mean()
    for begins_s in np.arange(1, 8) * window_s / 2:
        seen = [r for r in requests if begins_s < r.arrival_s / rate <= begins_s + window_s]
        asked = rate * window_s
        assert len(seen) == pytest.approx(asked, rel=0.01)
        prompts = sum(r.prompt_token_ids.size for r in seen)
        assert prompts == pytest.approx(asked * prompt, rel=0.01)
        assert sum(r.output_tokens for r in seen) == pytest.approx(asked * output, rel=0.01)


def test_unseen_traffic_has_other_requests_each_time() -> None:
    workload = load_workload("chat")
    streams = [workload, workload.representative(90), *(workload.unseen(n) for n in range(4))]
    first = [
        tuple((r.arrival_s, r.output_tokens) for r in islice(stream.requests(), 20))
        for stream in streams
    ]
    assert len(set(first)) == len(first)
    again = islice(load_workload("chat").unseen(3).requests(), 20)
    assert tuple((r.arrival_s, r.output_tokens) for r in again) == first[-1]
