"""The limits file, and the scheduler on stand-ins for the vLLMs that there are."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.servers.vllm import live_limits
from tuner.servers.vllm.live_limits import (
    FILE_VARIABLE,
    Limits,
    LimitsFile,
    LiveScheduler,
    State,
)

SEQS, TOKENS = 8, 256


@pytest.fixture
def file(tmp_path: Path) -> Iterator[LimitsFile]:
    made = LimitsFile.create(tmp_path / "a.limits")
    yield made
    made.close()


def test_one_side_asks_and_the_other_applies(file: LimitsFile) -> None:
    server = LimitsFile(file.path)
    assert file.state is State.STARTING
    server.attach(Limits(SEQS, TOKENS))
    assert (file.state, file.most) == (State.READY, Limits(SEQS, TOKENS))
    assert server.wanted_after(0) is None
    assert file.want(Limits(4, None)) == 1
    assert server.wanted_after(0) == (1, Limits(4, None))
    assert server.wanted_after(1) is None
    server.acknowledge(1, Limits(4, TOKENS))
    server.report(3)
    applied = file.applied
    assert (applied.generation, applied.limits) == (1, Limits(4, TOKENS))
    assert applied.running == 3
    server.close()


def test_a_refusal_says_why_and_is_cut_to_its_place(file: LimitsFile) -> None:
    server = LimitsFile(file.path)
    server.refuse("no such attribute " * 200)
    server.close()
    assert file.state is State.UNSUPPORTED
    assert file.reason.startswith("no such attribute no such")
    assert 1000 < len(file.reason) < 1024


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"x" * 4096)
    with pytest.raises(ValueError, match="is not a limits file"):
        LimitsFile(tmp_path / "b")


def test_limits_that_are_being_written_are_read_a_step_later(file: LimitsFile) -> None:
    server = LimitsFile(file.path)
    file.want(Limits(4, 100))
    file._words[live_limits._BEGUN_AT] = 2  # a second request for limits has begun
    assert server.wanted_after(0) is None
    file._words[live_limits._BEGUN_AT] = 1
    assert server.wanted_after(0) == (1, Limits(4, 100))
    server.close()


def test_the_file_that_is_shipped_needs_the_standard_library_alone() -> None:
    source = Path(live_limits.__file__).read_text()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert all(name.split(".")[0] in sys.stdlib_module_names for name in names)


class _Queue(deque[int]):
    """vLLM's queue in the order of arrival."""

    def add_request(self, request: int) -> None:
        self.append(request)

    def pop_request(self) -> int:
        return self.popleft()

    def prepend_request(self, request: int) -> None:
        self.appendleft(request)


class _Scheduler:
    """What the schedulers of all vLLMs have; a request runs for `LIFE` steps."""

    LIFE = 3

    def __init__(self, vllm_config: Any, **_: Any) -> None:
        self.vllm_config = vllm_config
        self.scheduler_config = vllm_config.scheduler_config
        self.max_num_running_reqs = SEQS
        self.max_num_scheduled_tokens = TOKENS
        self.policy = "fcfs"
        self.waiting = _Queue()
        self.running: list[int] = []
        self.ended: list[int] = []
        self.ages: dict[int, int] = {}
        self.begun: list[int] = []
        self.most_per_step = SEQS  # the budget of tokens may end before the slots do

    def admission(self) -> int:
        raise NotImplementedError

    def next_queue(self) -> _Queue:
        return self.waiting

    def schedule(self, throttle_prefills: bool = False) -> int:
        for request in [r for r in self.running if self.ages[r] >= self.LIFE]:
            self.running.remove(request)
            self.ended.append(request)
        left = self.most_per_step
        while (queue := self.next_queue()) and left and len(self.running) != self.admission():
            request = queue.pop_request()
            left -= 1
            self.running.append(request)
            self.begun.append(request)
        for request in self.running:
            self.ages[request] = self.ages.get(request, 0) + 1
        assert len(self.running) <= self.max_num_running_reqs
        return len(self.running)


class Newer(_Scheduler):
    """Slots and admission apart, as in vLLM 0.32."""

    def __init__(self, vllm_config: Any, **rest: Any) -> None:
        super().__init__(vllm_config, **rest)
        self.max_num_active_reqs = SEQS

    def admission(self) -> int:
        return max(self.max_num_active_reqs, len(self.running))


class Older(_Scheduler):
    """Admission until the slots are full, as in vLLM 0.22."""

    def __init__(self, vllm_config: Any, **rest: Any) -> None:
        super().__init__(vllm_config, **rest)
        self.skipped_waiting = _Queue()

    def admission(self) -> int:
        return self.max_num_running_reqs

    def next_queue(self) -> _Queue:
        return self.skipped_waiting or self.waiting


class Lacking(Newer):
    """A vLLM to come."""

    def __init__(self, vllm_config: Any, **rest: Any) -> None:
        super().__init__(vllm_config, **rest)
        del self.max_num_scheduled_tokens


def config(**changes: Any) -> Any:
    scheduler = {"max_num_batched_tokens": TOKENS, "async_scheduling": False, **changes}
    size = scheduler.pop("data_parallel_size", 1)
    return SimpleNamespace(
        scheduler_config=SimpleNamespace(**scheduler),
        parallel_config=SimpleNamespace(data_parallel_size=size),
    )


def engine(
    patch: pytest.MonkeyPatch, file: LimitsFile, base: type, vllm_config: Any | None = None
) -> Any:
    """Build the scheduler of a stand-in vLLM as its engine does."""
    patch.setenv(FILE_VARIABLE, str(file.path))
    modules = {
        "scheduler": {"Scheduler": base},
        "async_scheduler": {"AsyncScheduler": type("AsyncScheduler", (base,), {})},
        "request_queue": {"create_request_queue": lambda _: _Queue()},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        patch.setitem(sys.modules, f"vllm.v1.core.sched.{name}", module)
    return LiveScheduler(vllm_config=vllm_config or config())


@pytest.fixture
def made(file: LimitsFile, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    return partial(engine, monkeypatch, file)


@pytest.mark.parametrize("base", [Newer, Older])
def test_admission_obeys_and_slots_stay(made: Any, file: LimitsFile, base: type) -> None:
    scheduler = made(base)
    assert isinstance(scheduler, base)
    assert (file.state, file.most) == (State.READY, Limits(SEQS, TOKENS))
    scheduler.waiting.extend(range(100))
    assert scheduler.schedule() == SEQS
    file.want(Limits(2, 64))
    assert scheduler.schedule(throttle_prefills=True) == SEQS  # what runs is not put out
    assert scheduler.max_num_scheduled_tokens == 64
    assert scheduler.max_num_running_reqs == SEQS
    assert file.applied.limits == Limits(2, 64)
    for _ in range(8):
        scheduler.schedule()
    assert file.applied.running == len(scheduler.running) == 2
    file.want(Limits(None, None))
    for _ in range(4):
        scheduler.schedule()
    assert file.applied.running == SEQS
    assert file.applied.limits == Limits(SEQS, TOKENS)
    file.want(Limits(SEQS * 9, TOKENS * 9))
    scheduler.schedule()
    assert file.applied.limits == Limits(SEQS, TOKENS)


@pytest.mark.parametrize("base", [Newer, Older])
@settings(max_examples=30, deadline=None)
@given(limits=st.lists(st.integers(1, SEQS), min_size=1, max_size=20), data=st.data())
def test_every_request_ends_in_order_whatever_the_limits(
    tmp_path_factory: pytest.TempPathFactory, base: type, limits: list[int], data: Any
) -> None:
    folder = tmp_path_factory.mktemp("limits")
    file = LimitsFile.create(folder / "f")
    with pytest.MonkeyPatch.context() as patch:
        scheduler = engine(patch, file, base)
        sent = data.draw(st.integers(0, 4))
        getattr(scheduler, "skipped_waiting", scheduler.waiting).extend(range(sent))
        for limit in limits:
            file.want(Limits(limit, None))
            scheduler.most_per_step = data.draw(st.integers(0, SEQS))
            arrived = data.draw(st.integers(0, 5))
            scheduler.waiting.extend(range(sent, sent + arrived))
            sent += arrived
            before = len(scheduler.running)
            assert scheduler.schedule() <= max(limit, before)
        scheduler.most_per_step = SEQS
        while scheduler.next_queue() or scheduler.running:
            scheduler.schedule()
    assert scheduler.begun == sorted(scheduler.ended) == list(range(sent))
    file.close()


def test_a_scheduler_without_the_attribute_serves_as_it_is(made: Any, file: LimitsFile) -> None:
    scheduler = made(Lacking)
    assert file.state is State.UNSUPPORTED
    assert "has no max_num_scheduled_tokens" in file.reason
    file.want(Limits(1, 1))
    scheduler.waiting.extend(range(20))
    assert scheduler.schedule() == SEQS


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_num_batched_tokens": TOKENS + 8}, "drafted tokens"),
        ({"data_parallel_size": 2}, "several engines"),
    ],
)
def test_what_a_limit_would_not_govern_is_refused(
    made: Any, file: LimitsFile, changes: dict[str, int], reason: str
) -> None:
    made(Newer, config(**changes))
    assert file.state is State.UNSUPPORTED
    assert reason in file.reason


def test_the_asynchronous_scheduler_is_taken_where_vllm_would(made: Any) -> None:
    plain, asynchronous = made(Newer), made(Newer, config(async_scheduling=True))
    bases = [[c.__name__ for c in type(s).__mro__] for s in (plain, asynchronous)]
    assert ["AsyncScheduler" in names for names in bases] == [False, True]


def test_a_vllm_without_the_module_says_so_before_it_fails(file: LimitsFile) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import live_limits;"
        "from types import SimpleNamespace as S;"
        "live_limits.LiveScheduler(vllm_config=S(scheduler_config=S()))"
    )
    folder = str(Path(live_limits.__file__).parent)
    ended = subprocess.run(
        [sys.executable, "-IS", "-c", script, folder],
        env={**os.environ, FILE_VARIABLE: str(file.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ModuleNotFoundError" in ended.stderr
    assert file.state is State.UNSUPPORTED
    assert "no scheduler where it is looked for" in file.reason
