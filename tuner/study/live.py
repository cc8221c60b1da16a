"""Evaluation on a server that is launched for each configuration."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tuner.configuration import Configuration, Value
from tuner.errors import PreflightError
from tuner.gpu.meter import Meter
from tuner.measure.live import run_load
from tuner.records import Failure, FailureKind, RawRun, Source
from tuner.serving.launch import LaunchFailedError, LaunchPlan, RunningServer, launched
from tuner.serving.server_metrics import ServerUnreachableError, resolved_settings
from tuner.study.evaluator import Bench, Evaluation, Task, load_defaults, load_of


@dataclass(frozen=True, slots=True)
class ServerKind:
    """Which server is launched, and what measures its energy.

    Attributes:
        command: the executable and its arguments before `serve`.
        version: what it calls itself.
        source: emulated if the server itself is.
        meter: returns the meter of the GPUs that a configuration uses.
        environment: returns the variables that apply a configuration's device knobs.
        defaults: the value of each unset flag; None to ask the running server.
    """

    command: tuple[str, ...]
    version: str
    source: Source
    meter: Callable[[Configuration], Meter]
    environment: Callable[[Configuration], Mapping[str, str]]
    defaults: Mapping[str, Value] | None


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """How servers are launched: their tag, where their logs go, deadline and port."""

    run_tag: str
    log_folder: Path
    startup_deadline_s: float
    port: int | None


class LiveEvaluator:
    """Launches one server per configuration, measures it, and stops it."""

    def __init__(self, server: ServerKind, task: Task, settings: LaunchSettings) -> None:
        self._server = server
        self._task = task
        self._settings = settings
        self._held: RunningServer | None = None  # the default configuration, started to ask it
        self._stack = AsyncExitStack()

    async def prepare(self) -> Bench:
        """Say what is measured on."""
        meter = self._server.meter(self._task.fixed)
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
                launched(self._plan(Configuration(), "baseline"))
            )
        except LaunchFailedError as error:
            log = f" (log: {error.failure.log_path})" if error.failure.log_path else ""
            raise PreflightError(
                f"the server does not start in its default configuration: {error.failure.reason}"
                f"{log}; mend it, or set what it needs under `fixed:` in the search space"
            ) from error
        known = self._server.defaults
        flags = await _reported_defaults(self._held) if known is None else known
        self._task.require_room(flags.get("max_model_len"))
        return {**flags, **load_defaults(self._task.load)}

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        """Launch, measure, stop."""
        began_s = time.monotonic()
        raw: RawRun | None = None
        warnings: tuple[str, ...] = ()
        try:
            async with AsyncExitStack() as stack:
                server = await self._take(stack, configuration, trial)
                raw, warnings = await self._measure(server, configuration)
                exit_code = server.exit_code()
            result = self._task.reduce(raw)
            if exit_code is not None:
                result = _died(server, exit_code, result)
            elif isinstance(result, Failure):
                result = dataclasses.replace(result, log_path=server.log_path)
        except LaunchFailedError as error:
            result = error.failure
        return Evaluation(result, raw, warnings, time.monotonic() - began_s)

    async def _take(
        self, stack: AsyncExitStack, configuration: Configuration, trial: int
    ) -> RunningServer:
        """Return the held server if it is the one that is wanted, else launch."""
        held, self._held = self._held, None
        if held is not None and not configuration.knobs():
            stack.push_async_exit(self._stack.pop_all())
            return held
        await self._stack.aclose()
        plan = self._plan(configuration, f"trial-{trial:04d}")
        return await stack.enter_async_context(launched(plan))

    async def _measure(
        self, server: RunningServer, configuration: Configuration
    ) -> tuple[RawRun, tuple[str, ...]]:
        task = self._task
        raw, warnings = await run_load(
            server.base_url,
            server.served_name,
            task.workload.requests(),
            load_of(configuration, task.load),
            self._server.meter(task.whole(configuration)),
            task.window,
        )
        return dataclasses.replace(raw, latency_source=self._server.source), warnings

    def _plan(self, configuration: Configuration, name: str) -> LaunchPlan:
        whole = self._task.whole(configuration)
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
        """Stop the held server."""
        self._held = None
        await self._stack.aclose()


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
