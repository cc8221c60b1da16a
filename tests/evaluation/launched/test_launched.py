"""The live evaluator on the emulator's server, healthy and misbehaving."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.live_servers import RUN_TAG, evaluator

from tuner.configuration import Configuration
from tuner.errors import PreflightError
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.evaluation.traffic import Traffic
from tuner.load.workload import Workload, load_workload
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Failure, FailureKind, Load, Measurement, RequestState, Source
from tuner.servers.processes import tagged_processes


@pytest.fixture(scope="module")
def workload() -> Workload:
    return load_workload("smoke")


async def test_the_server_asked_for_defaults_serves_the_first_trial(
    tmp_path: Path, workload: Workload
) -> None:
    async with evaluator(tmp_path, workload) as live:
        bench = await live.prepare()
        assert (bench.gpu, bench.energy_source) == ("H100-SXM", Source.EMULATED)
        await live.defaults()
        (before,) = {p.pid for p in tagged_processes(RUN_TAG)}
        assert live.is_warm_for(Configuration())
        evaluation = await live.evaluate(Configuration(), 0)
        assert {p.pid for p in tagged_processes(RUN_TAG)} == {before}
        assert evaluation.timing.launch_s is None
        result = evaluation.result
        assert isinstance(result, Measurement), result
        assert result.latency_source is Source.EMULATED
        assert not (tmp_path / "logs" / "trial-0000.log").exists()  # no second launch
        raw = evaluation.raw
        assert raw is not None
        tokens = sum(
            ((r.token_times_s > raw.window_start_s) & (r.token_times_s <= raw.window_end_s)).sum()
            for r in raw.requests
        )
        assert result.metrics["output_throughput_tok_s"] == pytest.approx(tokens / 1.5)


async def test_another_configuration_stops_the_held_server_first(
    tmp_path: Path, workload: Workload
) -> None:
    async with evaluator(tmp_path, workload) as live:
        await live.defaults()
        evaluation = await live.evaluate(Configuration(flags={"max_num_seqs": 4}), 1)
        assert isinstance(evaluation.result, Measurement)
        assert (tmp_path / "logs" / "trial-0001.log").is_file()
        assert evaluation.raw is not None
        assert evaluation.raw.server.running.max() <= 4


async def test_a_dead_engine_that_answers_200_is_no_throughput(
    tmp_path: Path, workload: Workload
) -> None:
    async with evaluator(tmp_path, workload, "--emulated-fail-after-tokens 500") as live:
        evaluation = await live.evaluate(Configuration(), 0)
    result = evaluation.result
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.UNSTABLE
    assert "requests failed" in result.reason and "finish reason" in result.reason
    assert evaluation.raw is not None  # kept as evidence
    assert any(r.state is RequestState.FAILED for r in evaluation.raw.requests)


async def test_a_server_that_dies_mid_run_is_a_failure_with_its_exit_code(
    tmp_path: Path, workload: Workload
) -> None:
    async with evaluator(tmp_path, workload, "--emulated-die-after-tokens 500") as live:
        result = (await live.evaluate(Configuration(), 0)).result
    assert isinstance(result, Failure)
    assert result.reason.startswith("vLLM ended with code 1 under load")
    assert result.log_path is not None and result.log_path.is_file()


async def test_a_refused_start_is_the_configurations_fault(
    tmp_path: Path, workload: Workload
) -> None:
    async with evaluator(tmp_path, workload) as live:
        refused = Configuration(flags={"gpu_memory_utilization": 0.05})
        result = (await live.evaluate(refused, 1)).result
    assert isinstance(result, Failure)
    assert result.kind is FailureKind.CONFIGURATION


async def test_a_default_that_does_not_start_is_told_before_the_night(
    tmp_path: Path, workload: Workload
) -> None:
    flags = {"max_num_seqs": 64, "max_num_batched_tokens": 16}
    async with evaluator(tmp_path, workload, flags=flags) as live:
        with pytest.raises(PreflightError, match=r"default configuration.*under `fixed:`"):
            await live.defaults()


def test_a_workload_that_does_not_fit_the_context_is_told(workload: Workload) -> None:
    task = MeasurementPlan(
        "m", Traffic(workload), Load(concurrency=1), (), WindowPlan(), Configuration()
    )
    task.require_room({}, "max_model_len")
    task.require_room({"max_model_len": workload.max_request_tokens}, "max_model_len")
    with pytest.raises(PreflightError, match="raise max_model_len"):
        task.require_room({"max_model_len": workload.max_request_tokens - 1}, "max_model_len")
