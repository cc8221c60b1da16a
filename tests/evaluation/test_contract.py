"""What every evaluator promises, whatever it evaluates on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.evaluators import PLAN, Opened, attached, launched, remote, virtual

from tuner.configuration import Configuration
from tuner.evaluation.evaluator import IDLE_POWER, Evaluation, Evaluator
from tuner.records import Load, Measurement

MEMBERS: dict[str, Callable[[Path], Opened]] = {
    "virtual": virtual,
    "launched": launched,
    "attached": attached,
    "remote": remote,
}


@pytest.fixture(params=sorted(MEMBERS))
async def member(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Evaluator]:
    async with MEMBERS[request.param](tmp_path) as made:
        yield made
        await made.close()
        await made.close()  # a second time is nothing


def require_measured(evaluation: Evaluation) -> Measurement:
    assert isinstance(evaluation.result, Measurement), evaluation.result
    assert evaluation.raw is not None
    assert evaluation.timing.elapsed_s > 0.0
    return evaluation.result


async def test_it_says_what_it_runs_on_and_measures_with_those_sources(member: Evaluator) -> None:
    testbed = await member.prepare()
    assert await member.prepare() == testbed
    assert testbed.gpu and testbed.server_version
    defaults = await member.defaults()
    assert defaults["concurrency"] == 8
    result = require_measured(await member.evaluate(Configuration(), 0))
    assert result.energy_source is testbed.energy_source
    assert result.latency_source is testbed.latency_source
    for metric in ("energy_per_output_token_j", "output_throughput_tok_s", "p99_tpot_ms"):
        assert result.metrics[metric] > 0.0


async def test_what_it_has_evaluated_it_can_evaluate_again_without_a_launch(
    member: Evaluator,
) -> None:
    await member.prepare()
    await member.defaults()
    require_measured(await member.evaluate(Configuration(), 0))
    assert member.is_warm_for(Configuration())
    again = await member.evaluate(Configuration(), 1)
    require_measured(again)
    assert again.timing.launch_s is None
    assert again.spent(wall_s=123.0).elapsed_s == (
        again.timing.elapsed_s if again.is_virtual else 123.0
    )


async def test_a_load_knob_changes_the_load_and_a_repeat_is_measured_too(member: Evaluator) -> None:
    await member.prepare()
    await member.defaults()
    one = Configuration(load={"concurrency": 1})
    alone = require_measured(await member.evaluate(one, 1))
    eight = require_measured(await member.confirm(Configuration(), 0, 0))
    name = "output_throughput_tok_s"
    assert alone.metrics[name] < eight.metrics[name]


async def test_another_load_and_none_are_measured_on_the_warm_server(member: Evaluator) -> None:
    await member.prepare()
    await member.evaluate(Configuration(), 0)
    run = replace(PLAN.run_of(Configuration(), 3), load=Load(concurrency=2))
    probed = await member.probe(Configuration(), 0, run)
    busy = require_measured(probed)
    assert probed.timing.launch_s is None
    idle = (await member.idle(Configuration(), 1, window_s=0.6)).result
    assert isinstance(idle, Measurement) and list(idle.metrics) == [IDLE_POWER]
    assert 0.0 < idle.metrics[IDLE_POWER] < busy.metrics["mean_power_w"]
