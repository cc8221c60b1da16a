"""The engine in real time: its clock is the schedule, and the wall clock waits for it."""

from __future__ import annotations

import asyncio
import importlib
import math
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tuner.emulator.engine.engine import Engine
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.http.served_devices import ServedDevices

_LOOK_S = 0.1  # how often an engine with nothing to do looks at its GPUs' settings


class ServedLimits:
    """The limits file that a scheduler for vLLM reads, read for this engine between its steps.

    The scheduler class itself is for vLLM; its module says what the file looks like, and has to be
    found as vLLM would find it. Raises `ImportError`, `AttributeError`, `KeyError` (no file named)
    or `OSError`.
    """

    def __init__(self, scheduler_cls: str) -> None:
        self._module: Any = importlib.import_module(scheduler_cls.rpartition(".")[0])
        variable = self._module.FILE_VARIABLE
        self._file = self._module.LimitsFile(Path(os.environ[variable]))
        self._generation = 0

    def attach(self, engine: Engine) -> None:
        """Say that the file is read, and what the engine was launched with."""
        if engine.launch.data_parallel_size > 1:
            self._file.refuse("each of several engines has a scheduler of its own")
            return
        self._file.attach(self._most(engine))

    def before_step(self, engine: Engine) -> None:
        """Take the limits that were asked for since the step before."""
        asked = self._file.wanted_after(self._generation)
        if asked is None:
            return
        self._generation, wanted = asked
        limits = wanted.under(self._most(engine))
        engine.set_limits(limits.max_num_seqs, limits.max_num_batched_tokens)
        self._file.acknowledge(self._generation, limits)

    def after_step(self, engine: Engine) -> None:
        """Say how many requests run."""
        self._file.report(engine.running)

    def _most(self, engine: Engine) -> Any:
        launch = engine.launch
        return self._module.Limits(launch.max_num_seqs, launch.max_num_batched_tokens)


class _Stream:
    """A sequence and what wakes the response that streams it."""

    __slots__ = ("changed", "sequence", "tokens")

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.tokens = 0  # made by steps that are over
        self.changed = asyncio.Event()


class ServedEngine:
    """Steps an engine so that each step ends when its clock says, `speed` times faster.

    `after_step` is called with the engine after each step. `devices` are the GPUs that other
    processes see; they run in real time, so `speed` must be 1. Once `broken`, the engine makes no
    more steps, and streams end unfinished, as with a dead vLLM engine; then `when_broken` is
    called.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        speed: float = 1.0,
        after_step: Callable[[ServedEngine], None] | None = None,
        limits: ServedLimits | None = None,
        devices: ServedDevices | None = None,
    ) -> None:
        self.engine = engine
        self.broken = False
        self.when_broken: Callable[[], None] | None = None
        self._speed = speed
        self._after_step = after_step
        self._limits = limits
        self._devices = devices
        self._origin_s = time.monotonic()
        self._streams: dict[Sequence, _Stream] = {}
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to step. Raises `LaunchRefusedError` if another server is on its GPUs."""
        if self._limits is not None:
            self._limits.attach(self.engine)
        self._origin_s = time.monotonic()
        if self._devices is not None:
            self._devices.attach(self.engine, self._origin_s)
        self._task = asyncio.create_task(self._loop())

    async def stop(self) -> None:
        """Stop stepping."""
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        if self._devices is not None:
            self._devices.detach()

    def break_down(self) -> None:
        """Let the engine die while the server lives on."""
        if self.broken:
            return
        self.broken = True
        for stream in self._streams.values():
            stream.changed.set()
        if self.when_broken is not None:
            self.when_broken()

    def now_s(self) -> float:
        """Emulated time: the wall clock, `speed` times faster."""
        return (time.monotonic() - self._origin_s) * self._speed

    def energy_j(self) -> float:
        """Energy used up to now; a step under way counts for the part that is over."""
        ahead_s = self.engine.clock_s - self.now_s()
        power_w = self.engine.power_w if ahead_s > 0 else self.engine.idle_w
        return self.engine.energy_j - power_w * ahead_s

    def power_w(self) -> float:
        """Power at this moment."""
        return self.engine.power_w if self._is_busy() else self.engine.idle_w

    def clock_mhz(self) -> float:
        """SM clock at this moment."""
        return self.engine.clock_mhz if self._is_busy() else self.engine.idle_clock_mhz

    def _is_busy(self) -> bool:
        return self.engine.clock_s > self.now_s() or self.engine.running > 0

    async def generate(self, sequence: Sequence) -> AsyncGenerator[int, None]:
        """Run a sequence; yields how many tokens it has, each time there are more.

        It is aborted if the caller stops before the end, and cut short if the engine breaks.
        """
        stream = self._streams[sequence] = _Stream(sequence)
        self.engine.submit(sequence)
        self._arrived.set()
        seen = 0
        try:
            while seen < sequence.output_tokens and not self.broken:
                await stream.changed.wait()
                stream.changed.clear()
                if stream.tokens > seen:
                    seen = stream.tokens
                    yield seen
        finally:
            del self._streams[sequence]
            if not sequence.done:
                self.engine.abort(sequence)

    async def _loop(self) -> None:
        engine = self.engine
        while not self.broken:
            if engine.running == 0 and engine.waiting == 0:
                await self._idle()
                continue
            if self._limits is not None:
                self._limits.before_step(engine)
            if self._devices is not None:
                self._devices.before_step(engine)
            engine.advance(math.inf, max_steps=1)
            if self._limits is not None:
                self._limits.after_step(engine)
            if self._devices is not None:
                self._devices.publish(engine, busy=True)
            await asyncio.sleep(max((engine.clock_s - self.now_s()) / self._speed, 0.0))
            self._publish()

    async def _idle(self) -> None:
        """Wait for a request, and at times look whether the GPUs' settings have changed."""
        self._arrived.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), None if self._devices is None else _LOOK_S)
        self.engine.idle(max(self.now_s(), self.engine.clock_s))
        if self._devices is not None:
            self._devices.publish(self.engine, busy=False)
            self._devices.before_step(self.engine)

    def _publish(self) -> None:
        """Show the tokens of the step that is over."""
        for sequence, stream in self._streams.items():
            tokens = sequence.tokens_by(self.engine.step_count)
            if tokens > stream.tokens:
                stream.tokens = tokens
                stream.changed.set()
        if self._after_step is not None:
            self._after_step(self)
