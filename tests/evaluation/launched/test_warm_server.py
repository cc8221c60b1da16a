"""One server for many configurations, on the emulator's server and in virtual time."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

import psutil
import pytest
from helpers.live_servers import RUN_TAG, evaluator, launches
from hypothesis import given
from hypothesis import strategies as st

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration, Value
from tuner.evaluation.emulated.emulation import TextEmulation
from tuner.evaluation.emulated.virtual import CHANGE_S, LAUNCH_S, VirtualEvaluator
from tuner.evaluation.evaluator import Evaluation, MeasurementPlan
from tuner.evaluation.launched.launch_sharing import REPEATS_A_LAUNCH, LiveKnobs
from tuner.evaluation.traffic import Traffic
from tuner.load.workload import Workload, load_workload
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Failure, FailureKind, Load, RequestState
from tuner.servers.processes import tagged_processes
from tuner.servers.vllm import live_limits
from tuner.servers.vllm.live_limits import LimitsFile

LARGEST = {"max_num_seqs": 64, "max_num_batched_tokens": 4096}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.servers.ready.SETTLE_S", 0.0)


@pytest.fixture(scope="module")
def workload() -> Workload:
    return load_workload("smoke")


def asked(seqs: int, tokens: int = 2048, **flags: Value) -> Configuration:
    return Configuration(flags={"max_num_seqs": seqs, "max_num_batched_tokens": tokens, **flags})


async def test_six_configurations_take_two_launches(tmp_path: Path, workload: Workload) -> None:
    async with evaluator(tmp_path, workload, largest=LARGEST, window_s=0.5) as live:
        await live.defaults()
        launched, running = [], []
        pairs = list(itertools.product((1, 6), (64, 1024, 4096)))[1:]  # with the default
        for trial, configuration in enumerate([Configuration(), *itertools.starmap(asked, pairs)]):
            warm = live.is_warm_for(configuration)
            evaluation = await live.evaluate(configuration, trial)
            assert warm == (evaluation.timing.launch_s is None)
            seqs = configuration.flags.get("max_num_seqs", 8)  # eight requests are sent at once
            running.append(most_running(evaluation))
            assert running[-1] <= seqs
            launched.append(evaluation.timing.launch_s is not None)
        assert max(running[1:]) > min(running[1:]) == 1  # the limits are what holds them back
        assert launches(tmp_path) == 2
        # the default's launch was made to ask it for its defaults
        assert launched == [False, True, False, False, False, False]


async def test_another_launch_knob_launches_anew_and_a_confirmation_is_clean(
    tmp_path: Path, workload: Workload
) -> None:
    async with evaluator(tmp_path, workload, largest=LARGEST, window_s=0.5) as live:
        first = await live.evaluate(asked(4), 1)
        assert first.timing.launch_s is not None
        assert first.timing.launch_s < first.timing.elapsed_s
        other = asked(4, gpu_memory_utilization=0.8)
        assert live.is_warm_for(asked(5)) and not live.is_warm_for(other)
        second = await live.evaluate(other, 2)
        assert second.timing.launch_s is not None
        assert launches(tmp_path) == 2

        confirmed = await live.confirm(other, 2, 0)
        assert most_running(confirmed) == 4
        assert confirmed.timing.launch_s is not None
        assert launches(tmp_path) == 3
        assert server_flag("max-num-seqs") == "4"
        with pytest.raises(StopIteration):
            server_flag("scheduler-cls")
        assert not live.is_warm_for(other)  # what is confirmed is not searched on


async def test_a_few_repeats_share_a_launch_of_exactly_their_flags(
    tmp_path: Path, workload: Workload
) -> None:
    async with evaluator(tmp_path, workload, largest=LARGEST, window_s=0.5) as live:
        await live.evaluate(asked(4), 1)  # under live limits, which repeats are not to have
        found = [await live.confirm(asked(4), n, n) for n in range(REPEATS_A_LAUNCH + 1)]
        launched = [one.timing.launch_s is not None for one in found]
        assert launched == [True, *[False] * (REPEATS_A_LAUNCH - 1), True]
        assert [most_running(one) for one in found] == [4.0] * len(found)
        other = await live.confirm(asked(5), 9, 9)
        assert other.timing.launch_s is not None


async def test_a_repeat_after_a_failed_one_is_launched_anew(
    tmp_path: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with evaluator(tmp_path, workload, largest=LARGEST, window_s=0.5) as live:
        await live.confirm(asked(4), 0, 0)
        broken = Failure(FailureKind.INFRASTRUCTURE, "the counter jumped")
        with monkeypatch.context() as patch:
            patch.setattr(MeasurementPlan, "reduce", lambda *_: broken)
            failed = await live.confirm(asked(4), 1, 1)
        assert isinstance(failed.result, Failure) and failed.timing.launch_s is None
        monkeypatch.setattr("tuner.evaluation.launched.launched.BACK_OFF_S", (0.0, 0.0))
        again = await live.confirm(asked(4), 2, 1)
        assert again.timing.launch_s is not None


async def test_a_server_that_died_between_two_is_launched_anew(
    tmp_path: Path, workload: Workload
) -> None:
    async with evaluator(tmp_path, workload, largest=LARGEST, window_s=0.5) as live:
        await live.evaluate(asked(4), 1)
        (server,) = tagged_processes(RUN_TAG)
        os.kill(server.pid, signal.SIGKILL)
        evaluation = await live.evaluate(asked(8), 2)
        assert most_running(evaluation) > 4
        assert evaluation.timing.launch_s is not None
        assert launches(tmp_path) == 2


def most_running(evaluation: Evaluation) -> float:
    """The most requests that ran at once; how late a busy machine made the client is no matter."""
    assert evaluation.raw is not None, evaluation.result
    assert all(r.state is not RequestState.FAILED for r in evaluation.raw.requests)
    return float(evaluation.raw.server.running.max())


def server_flag(name: str) -> str:
    """A flag of the server that runs."""
    (server,) = tagged_processes(RUN_TAG)
    words = psutil.Process(server.pid).cmdline()
    return next(w.partition("=")[2] for w in words if w.startswith(f"--{name}="))


async def test_a_death_is_the_trials_and_the_next_one_launches(
    tmp_path: Path, workload: Workload
) -> None:
    die = "--emulated-die-after-tokens 500"
    async with evaluator(tmp_path, workload, die, largest=LARGEST) as live:
        result = (await live.evaluate(asked(8), 1)).result
        assert isinstance(result, Failure)
        assert result.reason.startswith("vLLM ended with code 1 under load")
        assert result.kind is FailureKind.UNSTABLE
        assert not live.is_warm_for(asked(8))
        assert (await live.evaluate(asked(8), 2)).timing.launch_s is not None
        assert launches(tmp_path) == 2


async def test_limits_that_are_not_taken_end_in_a_clean_launch(
    tmp_path: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    async with evaluator(
        tmp_path, workload, largest=LARGEST, window_s=0.5, note=notes.append
    ) as live:
        await live.evaluate(asked(8), 1)
        monkeypatch.setattr(LimitsFile, "want", lambda *_: 99)  # nobody hears
        evaluation = await live.evaluate(asked(4), 2)
        assert most_running(evaluation) == 4
        assert evaluation.timing.launch_s is not None
        assert launches(tmp_path) == 3  # the one that was tried with limits is not counted on
    assert [note.partition(":")[0] for note in notes] == [
        "the server is launched again",
        "no warm server can start with the largest limits of the study, so these "
        "configurations are launched one by one",
    ]


REFUSES = """
def refuse(file, most):
    file.refuse("the scheduler of this vLLM has no max_num_scheduled_tokens")
LimitsFile.attach = refuse
"""


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (Path(live_limits.__file__).read_text() + REFUSES, "has no max_num_scheduled_tokens"),
        ("", "'tuner_live_limits' has no attribute"),
    ],
    ids=["lacks an attribute", "does not load it"],
)
async def test_a_server_that_cannot_is_told_once_and_launched_for_each(
    tmp_path: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch, module: str, says: str
) -> None:
    monkeypatch.setattr("tuner.servers.vllm.adjustable._source", lambda: module.encode())
    notes: list[str] = []
    async with evaluator(
        tmp_path, workload, largest=LARGEST, window_s=0.5, note=notes.append
    ) as live:
        for trial, seqs in enumerate((4, 2), start=1):
            evaluation = await live.evaluate(asked(seqs), trial)
            assert evaluation.timing.launch_s is not None
            assert most_running(evaluation) == seqs
        assert launches(tmp_path) == 3
    (note,) = notes
    assert "each configuration is launched" in note and says in note


async def test_a_launch_that_fails_with_the_largest_limits_only_is_done_without(
    tmp_path: Path, workload: Workload
) -> None:
    notes: list[str] = []
    flags: dict[str, Value] = {"gpu_memory_utilization": 0.3, "max_model_len": 2048}
    largest = {"max_num_seqs": 64, "max_num_batched_tokens": 2**20}  # its activations do not fit
    async with evaluator(
        tmp_path, workload, flags=flags, largest=largest, window_s=0.5, note=notes.append
    ) as live:
        evaluation = await live.evaluate(asked(4), 1)
        assert most_running(evaluation) == 4
        assert launches(tmp_path) == 2
    (note,) = notes
    assert "no warm server can start with the largest limits" in note


async def test_the_limits_of_a_server_that_was_not_launched_are_not_kept(
    tmp_path: Path, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    original = LimitsFile.close

    def close(self: LimitsFile) -> None:
        closed.append(self.path.name)
        original(self)

    monkeypatch.setattr(LimitsFile, "close", close)
    async with evaluator(tmp_path, workload, largest=LARGEST) as live:
        (tmp_path / "vllm").unlink()
        found = (await live.evaluate(asked(8), 1)).result
        assert isinstance(found, Failure) and "cannot start" in found.reason
        assert len(closed) == 1


async def test_limits_that_vllm_would_refuse_are_refused_without_a_launch(
    tmp_path: Path, workload: Workload
) -> None:
    async with evaluator(tmp_path, workload, largest=LARGEST) as live:
        evaluation = await live.evaluate(asked(64, 16), 1)
    assert isinstance(evaluation.result, Failure)
    assert evaluation.result.kind is FailureKind.CONFIGURATION
    assert "max_num_batched_tokens (16) must be greater than or equal" in evaluation.result.reason
    assert launches(tmp_path) == 0


LIVE = LiveKnobs(LARGEST)


@given(
    seqs=st.integers(1, 64),
    tokens=st.integers(64, 4096),
    other=st.integers(1, 64),
    memory=st.sampled_from([0.8, 0.9]),
)
def test_live_values_share_a_launch_and_others_do_not(
    seqs: int, tokens: int, other: int, memory: float
) -> None:
    launch = LIVE.shared(asked(seqs, tokens, gpu_memory_utilization=memory))
    assert launch.limits == {"max_num_seqs": seqs, "max_num_batched_tokens": tokens}
    assert launch.configuration.flags == {**LARGEST, "gpu_memory_utilization": memory}
    same = LIVE.shared(asked(other, gpu_memory_utilization=memory)).configuration
    assert same == launch.configuration
    different = LIVE.shared(asked(seqs, tokens, gpu_memory_utilization=0.7)).configuration
    assert different != launch.configuration


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"max_num_seqs": 4},
        {"max_num_seqs": 65},
        {"enable_chunked_prefill": False},
        {"data_parallel_size": 2},
        {"speculative_config": "{}"},
        {"max_num_batched_tokens": "2k"},
    ],
)
def test_what_is_not_governed_by_the_limits_is_launched_as_it_is(flags: dict[str, Value]) -> None:
    complete = {"max_num_seqs": 4, "max_num_batched_tokens": 64} if len(flags) == 1 else {}
    flags = flags if flags in ({}, {"max_num_seqs": 4}) else {**complete, **flags}
    launch = LIVE.shared(Configuration(flags=flags))
    assert launch.limits is None
    assert launch.configuration.flags == flags


def test_a_default_number_of_sequences_is_held_to_the_tokens() -> None:
    launch = LiveKnobs({"max_num_batched_tokens": 4096}).shared(
        Configuration(flags={"max_num_batched_tokens": 256})
    )
    assert launch.limits == {"max_num_seqs": 256, "max_num_batched_tokens": 256}


async def test_virtual_time_is_spent_as_on_a_live_server(workload: Workload) -> None:
    task = MeasurementPlan(
        model="Qwen/Qwen3-8B",
        traffic=Traffic(workload),
        load=Load(concurrency=8),
        slos=(),
        window=WindowPlan(window_s=5.0),
        fixed=Configuration(),
    )
    virtual = VirtualEvaluator(
        TextEmulation(load_model(task.model), load_gpu("H100-SXM")),
        load_gpu("H100-SXM"),
        task,
        0,
        LIVE,
    )
    await virtual.defaults()
    launched = []
    for trial, configuration in enumerate(
        [
            Configuration(),
            asked(4),
            asked(8, 512),
            Configuration(flags=asked(8).flags, device={"power_limit_w": 500}),
            asked(8, gpu_memory_utilization=0.8),
            asked(9, gpu_memory_utilization=0.8),
        ]
    ):
        warm = virtual.is_warm_for(configuration)
        evaluation = await virtual.evaluate(configuration, trial)
        assert evaluation.raw is not None
        before_s = evaluation.timing.elapsed_s - evaluation.raw.window_end_s
        assert before_s == pytest.approx(CHANGE_S if warm else LAUNCH_S)
        assert (evaluation.timing.launch_s is None) == warm
        launched.append(not warm)
    assert launched == [False, True, False, False, True, False]
    confirmed = [
        (await virtual.confirm(asked(9, gpu_memory_utilization=0.8), n, n)).timing.launch_s
        for n in range(REPEATS_A_LAUNCH + 1)
    ]
    assert confirmed == [LAUNCH_S, *[None] * (REPEATS_A_LAUNCH - 1), LAUNCH_S]
    assert (await virtual.confirm(asked(9), 9, 9)).timing.launch_s == LAUNCH_S
