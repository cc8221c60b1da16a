"""Live limits of vLLM: a memory-mapped file that holds them, and the scheduler that reads it.

A copy of this one file is put where the server finds it, so it imports the standard library alone;
vLLM's scheduler is taken from the vLLM that loads it. Each step costs one more read and one more
write of a word in shared memory.
"""

from __future__ import annotations

import importlib
import mmap
import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

FILE_VARIABLE = "TUNER_LIMITS_FILE"

_MAGIC = int.from_bytes(b"tunerLM1", "little")
_SIZE = 4096
_REASON_AT, _REASON_BYTES = 512, 1024
# The file in words of eight bytes, each written at once. A limit of 0 is one that is not set.
_MAGIC_AT, _STATE_AT, _MOST_SEQS_AT, _MOST_TOKENS_AT = 0, 1, 2, 3
_BEGUN_AT, _WANTED_SEQS_AT, _WANTED_TOKENS_AT, _WANTED_AT = 8, 9, 10, 11
_APPLIED_AT, _SEQS_AT, _TOKENS_AT = 16, 17, 18
_RUNNING_AT = 24


class State(IntEnum):
    """How far the server is with its limits file."""

    STARTING = 0
    READY = 1
    UNSUPPORTED = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a step; None leaves one at what the server was launched with."""

    max_num_seqs: int | None
    max_num_batched_tokens: int | None

    def under(self, most: Limits) -> Limits:
        """Return these limits where they are lower than `most`, which has both."""
        return Limits(
            min(self.max_num_seqs or _NO_LIMIT, most.max_num_seqs or _NO_LIMIT),
            min(self.max_num_batched_tokens or _NO_LIMIT, most.max_num_batched_tokens or _NO_LIMIT),
        )


_NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Applied:
    """What the server's last step ran with: which request for limits, and what it made of it."""

    generation: int
    limits: Limits
    running: int


class LimitsFile:
    """The file, mapped into memory; one process asks for limits, one applies them."""

    def __init__(self, path: Path) -> None:
        """Map a file that `create` made; raises `OSError` or `ValueError` if it is none."""
        self.path = path
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._words = memoryview(self._map).cast("Q")
        if self._words[_MAGIC_AT] != _MAGIC:
            self.close()
            raise ValueError(f"{path} is not a limits file")

    @classmethod
    def create(cls, path: Path) -> LimitsFile:
        """Write a new file: no limits asked for, and no server yet."""
        path.touch(mode=0o600)
        path.write_bytes(_MAGIC.to_bytes(8, "little").ljust(_SIZE, b"\0"))
        return cls(path)

    def close(self) -> None:
        """Unmap the file; it stays where it is."""
        self._words.release()
        self._map.close()

    def want(self, limits: Limits) -> int:
        """Ask for limits; return the generation that `applied` will show once they are in force."""
        words = self._words
        generation = words[_WANTED_AT] + 1
        words[_BEGUN_AT] = generation
        words[_WANTED_SEQS_AT] = limits.max_num_seqs or 0
        words[_WANTED_TOKENS_AT] = limits.max_num_batched_tokens or 0
        words[_WANTED_AT] = generation
        return generation

    def wanted_after(self, generation: int) -> tuple[int, Limits] | None:
        """Return what was asked for after `generation`, or None."""
        words = self._words
        newest = words[_WANTED_AT]
        if newest == generation:
            return None
        seqs, tokens = words[_WANTED_SEQS_AT], words[_WANTED_TOKENS_AT]
        if words[_BEGUN_AT] != newest:
            return None  # the next ones are being written; the next step reads them
        return newest, Limits(seqs or None, tokens or None)

    def attach(self, most: Limits) -> None:
        """Say that a server reads the file, and the limits that it was launched with."""
        words = self._words
        words[_MOST_SEQS_AT] = words[_SEQS_AT] = most.max_num_seqs or 0
        words[_MOST_TOKENS_AT] = words[_TOKENS_AT] = most.max_num_batched_tokens or 0
        words[_STATE_AT] = State.READY

    def refuse(self, reason: str) -> None:
        """Say why this server cannot change its limits."""
        text = reason.encode()[: _REASON_BYTES - 1]
        self._map[_REASON_AT : _REASON_AT + len(text) + 1] = text + b"\0"
        self._words[_STATE_AT] = State.UNSUPPORTED

    def acknowledge(self, generation: int, limits: Limits) -> None:
        """Say that the next step runs with these limits."""
        words = self._words
        words[_SEQS_AT] = limits.max_num_seqs or 0
        words[_TOKENS_AT] = limits.max_num_batched_tokens or 0
        words[_APPLIED_AT] = generation

    def report(self, running: int) -> None:
        """Say how many requests run in a step."""
        self._words[_RUNNING_AT] = running

    @property
    def state(self) -> State:
        """How far the server is."""
        return State(self._words[_STATE_AT])

    @property
    def reason(self) -> str:
        """Why the server cannot change its limits; empty if it did not say so."""
        text = self._map[_REASON_AT : _REASON_AT + _REASON_BYTES]
        return text.partition(b"\0")[0].decode(errors="replace")

    @property
    def most(self) -> Limits:
        """The limits that the server was launched with."""
        words = self._words
        return Limits(words[_MOST_SEQS_AT] or None, words[_MOST_TOKENS_AT] or None)

    @property
    def applied(self) -> Applied:
        """What the server's last step ran with."""
        words = self._words
        generation = words[_APPLIED_AT]  # before the limits: they are written first
        limits = Limits(words[_SEQS_AT] or None, words[_TOKENS_AT] or None)
        return Applied(generation, limits, words[_RUNNING_AT])


class LiveScheduler:
    """What `--scheduler-cls` names: vLLM's own scheduler, whichever it would take, with limits.

    vLLM's plain scheduler and its asynchronous one exclude each other, and which one an engine
    needs is known only here.
    """

    def __new__(cls, vllm_config: Any, *args: Any, **kwargs: Any) -> Any:
        """Return a scheduler of a class that is made for this vLLM."""
        file = LimitsFile(Path(os.environ[FILE_VARIABLE]))
        is_async = bool(getattr(vllm_config.scheduler_config, "async_scheduling", False))
        try:
            base = _vllm_scheduler(is_async)
        except (ImportError, AttributeError) as error:
            file.refuse(f"this vLLM has no scheduler where it is looked for ({error})")
            raise
        return _with_limits(base, file)(vllm_config, *args, **kwargs)


def _vllm_scheduler(is_async: bool) -> Any:
    if is_async:
        return importlib.import_module("vllm.v1.core.sched.async_scheduler").AsyncScheduler
    return importlib.import_module("vllm.v1.core.sched.scheduler").Scheduler


def _with_limits(base: Any, file: LimitsFile) -> Any:
    """Return a subclass of vLLM's scheduler that obeys the file between its steps."""

    class LimitedScheduler(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            reason = missing_in(self)
            self.max_num_scheduled_tokens: Any
            self._tuner_generation = 0
            self._tuner_admission: Any = None
            if reason is not None:
                file.refuse(reason)
                return
            admits_by_attribute = hasattr(self, "max_num_active_reqs")
            self._tuner_admission = _ByAttribute() if admits_by_attribute else _ByHoldingBack()
            self._tuner_most = Limits(
                self.max_num_active_reqs if admits_by_attribute else self.max_num_running_reqs,
                self.max_num_scheduled_tokens,
            )
            file.attach(self._tuner_most)

        def schedule(self, *args: Any, **kwargs: Any) -> Any:
            if self._tuner_admission is None:
                return super().schedule(*args, **kwargs)
            asked = file.wanted_after(self._tuner_generation)
            if asked is not None:
                self._tuner_generation = asked[0]
                limits = asked[1].under(self._tuner_most)
                self.max_num_scheduled_tokens = limits.max_num_batched_tokens
                self._tuner_admission.set(self, limits.max_num_seqs)
                file.acknowledge(asked[0], limits)
            held = self._tuner_admission.hold_back(self)
            try:
                return super().schedule(*args, **kwargs)
            finally:
                self._tuner_admission.give_back(self, held)
                file.report(len(self.running))

    return LimitedScheduler


def missing_in(scheduler: Any) -> str | None:
    """Say what a scheduler lacks for limits to be changed live; None if nothing."""
    needed = ["running", "max_num_running_reqs", "max_num_scheduled_tokens", "scheduler_config"]
    if not hasattr(scheduler, "max_num_active_reqs"):
        needed += ["waiting", "policy"]
    missing = [name for name in needed if not hasattr(scheduler, name)]
    if missing:
        return f"the scheduler of this vLLM has no {', '.join(missing)}"
    launched_tokens = getattr(scheduler.scheduler_config, "max_num_batched_tokens", None)
    if scheduler.max_num_scheduled_tokens != launched_tokens:
        return (
            "this vLLM does not schedule up to max_num_batched_tokens "
            f"({scheduler.max_num_scheduled_tokens} of {launched_tokens}), as with drafted tokens"
        )
    parallel = getattr(getattr(scheduler, "vllm_config", None), "parallel_config", None)
    if getattr(parallel, "data_parallel_size", 1) > 1:
        return "with data_parallel_size above 1 each of several engines has a scheduler of its own"
    if not hasattr(scheduler, "max_num_active_reqs"):
        return _missing_in_queue(scheduler.waiting)
    return None


def _missing_in_queue(queue: Any) -> str | None:
    calls = ("pop_request", "add_request", "prepend_request", "__len__", "__iter__")
    missing = [name for name in calls if not hasattr(queue, name)]
    return f"the queue of this vLLM has no {', '.join(missing)}" if missing else None


class _ByAttribute:
    """Newer vLLMs keep apart how many requests are admitted and how many slots there are."""

    def set(self, scheduler: Any, max_num_seqs: int) -> None:
        scheduler.max_num_active_reqs = max_num_seqs

    def hold_back(self, _: Any) -> None:
        return None

    def give_back(self, scheduler: Any, held: None) -> None:
        return None


class _ByHoldingBack:
    """Older vLLMs admit until the slots are full, so a step is shown only as many as may enter."""

    _QUEUES = ("skipped_waiting", "waiting")  # in the order in which vLLM takes from them

    def __init__(self) -> None:
        self._limit: int | None = None
        self._new_queue = importlib.import_module(
            "vllm.v1.core.sched.request_queue"
        ).create_request_queue

    def set(self, scheduler: Any, max_num_seqs: int) -> None:
        is_limit = max_num_seqs < scheduler.max_num_running_reqs
        self._limit = max_num_seqs if is_limit else None

    def hold_back(self, scheduler: Any) -> dict[str, Any]:
        """Swap the queues for short ones; return the long ones."""
        if self._limit is None:
            return {}
        room = max(self._limit - len(scheduler.running), 0)
        held = {n: getattr(scheduler, n) for n in self._QUEUES if hasattr(scheduler, n)}
        for name, queue in held.items():
            shown = self._new_queue(scheduler.policy)
            for _ in range(min(room, len(queue))):
                shown.add_request(queue.pop_request())
            room -= len(shown)
            setattr(scheduler, name, shown)
        return held

    def give_back(self, scheduler: Any, held: dict[str, Any]) -> None:
        """Put what was not admitted, or was preempted, back to the front of the long queues."""
        for name, queue in held.items():
            for request in reversed(list(getattr(scheduler, name))):
                queue.prepend_request(request)
            setattr(scheduler, name, queue)
