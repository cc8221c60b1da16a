"""A clean launch is asked the probe prompts, and a change of what the model says is seen."""

from __future__ import annotations

from pathlib import Path

from helpers.live_servers import evaluator

from tuner.configuration import Configuration
from tuner.evaluation.launched.launched import ServedEvaluator
from tuner.load.workload import load_workload
from tuner.measurement.outputs import PROBES, agreement, clearly_below
from tuner.store import Answers


async def answers(live: ServedEvaluator, configuration: Configuration, repeat: int) -> Answers:
    found = (await live.confirm(configuration, repeat, repeat)).answers
    assert found is not None and len(found) == PROBES
    return found


async def test_another_batch_says_the_same_and_a_smaller_cache_does_not(tmp_path: Path) -> None:
    async with evaluator(tmp_path, load_workload("smoke"), window_s=0.5) as live:
        first = await answers(live, Configuration(), 0)
        second = await answers(live, Configuration(flags={"max_num_seqs": 4}), 1)
        third = await answers(live, Configuration(flags={"kv_cache_dtype": "fp8"}), 2)
    assert len(set(first)) == PROBES  # each prompt has an answer of its own
    default, other = agreement([(first, second)]), agreement([(first, third)])
    assert default is not None and default.identical == 1.0
    assert other is not None and other.identical < 1.0
    # one token in a thousand: of 64 answers of 32 tokens one or two, seen but not beyond chance
    assert other.common_prefix < 1.0
    assert not clearly_below(default, default)


async def test_the_search_asks_nothing(tmp_path: Path) -> None:
    async with evaluator(tmp_path, load_workload("smoke"), window_s=0.5) as live:
        assert (await live.evaluate(Configuration(), 0)).answers is None
