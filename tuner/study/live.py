"""Evaluation on a server that is launched for each configuration."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tuner.configuration import Configuration, Value
from tuner.errors import PreflightError
from tuner.gpu import energy_window
from tuner.gpu.device_state import DeviceState
from tuner.gpu.energy_window import WindowVerdict
from tuner.gpu.meter import Meter, Surroundings
from tuner.measure.live import run_load
from tuner.records import Failure, FailureKind, Measurement, RawRun, Source
from tuner.serving.launch import LaunchFailedError, LaunchPlan, RunningServer, launched
from tuner.serving.processes import tagged_processes
from tuner.serving.server_metrics import ServerUnreachableError, resolved_settings
from tuner.study.device_knobs import DeviceKnobs, device_defaults
from tuner.study.evaluator import Bench, Evaluation, Task, load_defaults, load_of

COOL_DOWN_S = 30.0

_FLAGS = {
    energy_window.COUNTER_APART: "the energy counter and integrated power are more than 5 % apart",
    energy_window.LIMIT_NOT_BINDING: "limit_not_binding: power stayed below the limit",
    energy_window.SLOWDOWN_UNKNOWN: "the GPU does not say whether it was slowed down",
    energy_window.PROCESSES_UNKNOWN: "the GPU does not say who else was using it",
    energy_window.MAX_LIMIT_UNKNOWN: "the GPU does not say its highest power limit",
    energy_window.INTEGRAL_UNKNOWN: "power could not be integrated beside the energy counter",
}


@dataclass(frozen=True, slots=True)
class ServerKind:
    """Which server is launched, and what measures its energy.

    Attributes:
        command: the executable and its arguments before `serve`.
        version: what it calls itself.
        source: emulated if the server itself is.
        meter: returns the meter of the GPUs that a configuration uses.
        widest: a configuration that uses as many GPUs as any of the study.
        environment: returns the variables that apply a configuration's device knobs.
        defaults: the value of each unset flag; None to ask the running server.
    """

    command: tuple[str, ...]
    version: str
    source: Source
    meter: Callable[[Configuration], Meter]
    widest: Configuration
    environment: Callable[[Configuration], Mapping[str, str]]
    defaults: Mapping[str, Value] | None


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """How servers are launched: their tag, where their logs go, deadline and port."""

    run_tag: str
    log_folder: Path
    startup_deadline_s: float
    port: int | None


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A run, what is to be known of it, and whether its energy can be believed."""

    raw: RawRun
    warnings: tuple[str, ...]
    verdict: WindowVerdict


@dataclass(frozen=True, slots=True)
class _Running:
    """A server that is ready, what measures it, and who was on its GPUs before it."""

    server: RunningServer
    meter: Meter
    power_limit_w: float | None
    pids_before: frozenset[int]


class LiveEvaluator:
    """Launches one server per configuration, measures it, and stops it.

    `knobs` applies device knobs to real GPUs; None leaves those alone.
    """

    needs_guardian = True

    def __init__(
        self, server: ServerKind, task: Task, settings: LaunchSettings, knobs: DeviceKnobs | None
    ) -> None:
        self._server = server
        self._task = task
        self._settings = settings
        self._knobs = knobs
        self._held: _Running | None = None  # the default configuration, started to ask it
        self._stack = AsyncExitStack()
        self._gpus: tuple[DeviceState, ...] = ()

    async def prepare(self) -> Bench:
        """Say what is measured on; takes the leases of the GPUs whose limits are knobs."""
        meter = await asyncio.to_thread(self._server.meter, self._server.widest)
        with closing(meter):
            self._gpus = await asyncio.to_thread(meter.states)
        if self._knobs is not None:
            await asyncio.to_thread(self._knobs.open, self._gpus)
        return Bench(
            kind="live",
            server_version=self._server.version,
            gpu=meter.gpu,
            driver=meter.driver,
            energy_source=meter.source,
            latency_source=self._server.source,
        )

    async def defaults(self) -> Mapping[str, Value]:
        """Start the default configuration and ask it; trial 0 is measured on that server."""
        try:
            self._held = await self._stack.enter_async_context(
                self._running(Configuration(), "baseline")
            )
        except LaunchFailedError as error:
            log = f" (log: {error.failure.log_path})" if error.failure.log_path else ""
            raise PreflightError(
                f"the server does not start in its default configuration: {error.failure.reason}"
                f"{log}; mend it, or set what it needs under `fixed:` in the search space"
            ) from error
        known = self._server.defaults
        flags = await _reported_defaults(self._held.server) if known is None else known
        self._task.require_room(flags.get("max_model_len"))
        return {**flags, **device_defaults(self._gpus), **load_defaults(self._task.load)}

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        """Launch, measure, stop."""
        began_s = time.monotonic()
        try:
            async with AsyncExitStack() as stack:
                running = await self._take(stack, configuration, trial)
                judged = await self._measure(running, configuration)
                if not judged.verdict.valid and await _cool_down(running.server):
                    judged = await self._measure(running, configuration)
                exit_code = running.server.exit_code()
        except LaunchFailedError as error:
            return Evaluation(error.failure, None, (), time.monotonic() - began_s)
        except PreflightError as error:  # a port that is taken for a moment must not end the night
            failure = Failure(FailureKind.INFRASTRUCTURE, str(error))
            return Evaluation(failure, None, (), time.monotonic() - began_s)
        raw = dataclasses.replace(judged.raw, latency_source=self._server.source)
        result = self._result(running.server, exit_code, raw, judged.verdict)
        warnings = (*judged.warnings, *map(_flag_in_words, judged.verdict.flags))
        return Evaluation(result, raw, warnings, time.monotonic() - began_s)

    def _result(
        self, server: RunningServer, exit_code: int | None, raw: RawRun, verdict: WindowVerdict
    ) -> Measurement | Failure:
        result = self._task.reduce(raw)
        if exit_code is not None:
            return _died(server, exit_code, result)
        if isinstance(result, Failure):
            return dataclasses.replace(result, log_path=server.log_path)
        if not verdict.valid:
            return Failure(
                FailureKind.INFRASTRUCTURE,
                f"the energy of the window cannot be believed: {'; '.join(verdict.reasons)}",
                server.log_path,
            )
        return result

    async def _take(
        self, stack: AsyncExitStack, configuration: Configuration, trial: int
    ) -> _Running:
        """Return the held server if it is the one that is wanted, else launch."""
        held, self._held = self._held, None
        if held is not None and not configuration.knobs():
            stack.push_async_exit(self._stack.pop_all())
            return held
        await self._stack.aclose()
        return await stack.enter_async_context(self._running(configuration, f"trial-{trial:04d}"))

    @asynccontextmanager
    async def _running(self, configuration: Configuration, name: str) -> AsyncIterator[_Running]:
        """Set the limits, then launch: they settle while the server loads."""
        whole = self._task.whole(configuration)
        power_limit_w = None
        if self._knobs is not None:
            power_limit_w = await asyncio.to_thread(self._knobs.apply, configuration)
        meter = await asyncio.to_thread(self._server.meter, whole)
        with closing(meter):
            before = _pids(await asyncio.to_thread(meter.states))
            async with launched(self._plan(whole, name)) as server:
                yield _Running(server, meter, power_limit_w, before)

    async def _measure(self, running: _Running, configuration: Configuration) -> JudgedRun:
        task = self._task
        before = await asyncio.to_thread(running.meter.states)
        raw, warnings = await run_load(
            running.server.base_url,
            running.server.served_name,
            task.workload.requests(),
            load_of(configuration, task.load),
            running.meter,
            task.window,
        )
        surroundings = Surroundings(before, self._own_pids(running, before), running.power_limit_w)
        verdict = await asyncio.to_thread(
            running.meter.judge, raw.window_start_s, raw.window_end_s, surroundings
        )
        return JudgedRun(raw, warnings, verdict)

    def _own_pids(self, running: _Running, states: tuple[DeviceState, ...]) -> set[int]:
        """Return the server's processes as NVML may name them.

        In a container NVML names the host's pids, which cannot be found here: those that came with
        the server are taken for it.
        """
        tagged = {process.pid for process in tagged_processes(self._settings.run_tag)}
        came = _pids(states) - running.pids_before
        return tagged | {pid for pid in came if not Path(f"/proc/{pid}").exists()}

    def _plan(self, whole: Configuration, name: str) -> LaunchPlan:
        settings = self._settings
        return LaunchPlan(
            command=self._server.command,
            model=self._task.model,
            configuration=whole,
            environment=self._server.environment(whole),
            run_tag=settings.run_tag,
            log_path=settings.log_folder / f"{name}.log",
            startup_deadline_s=settings.startup_deadline_s,
            port=settings.port,
        )

    async def close(self) -> None:
        """Stop the held server, then put the GPUs back."""
        self._held = None
        try:
            await self._stack.aclose()
        finally:
            if self._knobs is not None:
                await asyncio.to_thread(self._knobs.close)


def _pids(states: tuple[DeviceState, ...]) -> frozenset[int]:
    return frozenset(pid for state in states for pid in state.pids or ())


def _flag_in_words(flag: str) -> str:
    return _FLAGS.get(flag, flag)


async def _cool_down(server: RunningServer) -> bool:
    """Wait before a window is repeated; False if the server is not as it was before the first.

    The same prompts are sent again, so the prefix cache has to be empty.
    """
    await asyncio.sleep(COOL_DOWN_S)
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{server.base_url}/reset_prefix_cache") as reply,
        ):
            return reply.status == 200
    except aiohttp.ClientError:
        return False


async def _reported_defaults(server: RunningServer) -> Mapping[str, Value]:
    """Return what the server made of the flags that were not set; empty if it does not say."""
    async with aiohttp.ClientSession() as session:
        try:
            settings = await resolved_settings(session, server.base_url)
        except ServerUnreachableError:
            return {}
    if settings is None:
        return {}
    return {k: v for k, v in dataclasses.asdict(settings).items() if v is not None}


def _died(server: RunningServer, exit_code: int, result: object) -> Failure:
    detail = f"; {result.reason}" if isinstance(result, Failure) else ""
    return Failure(
        FailureKind.UNSTABLE,
        f"the server died during the measurement (exit code {exit_code}){detail}",
        server.log_path,
    )
