"""The server that is kept between evaluations, and launched anew where it has to be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.configuration import Configuration, Value
from tuner.devices.device_state import DeviceState
from tuner.devices.meter import Meter
from tuner.evaluation.launched.launch_sharing import Launch, LiveKnobs
from tuner.measure.listener import NOBODY, LoadListener
from tuner.records import FailureKind, Source
from tuner.servers.idle_device import await_idle, memory_of
from tuner.servers.launch import LaunchFailedError, LaunchPlan, RunningServer, launched
from tuner.servers.ready import LiveFiles, NotReusableError, is_about_scheduler, make_ready
from tuner.servers.start_ups import StartUps
from tuner.servers.vllm.live_limits import Limits, LimitsFile, State


@dataclass(frozen=True, slots=True)
class ServerKind:
    """Which server is launched, and what measures its energy.

    Attributes:
        command: the executable and its arguments before `serve`.
        version: what it calls itself.
        source: emulated if the server itself is.
        meter: returns the meter of the GPUs that a configuration uses.
        widest: a configuration that uses as many GPUs as any of the study.
        environment: variables of every launch.
        defaults: the value of each unset flag; None to ask the running server.
        live: the flags that the server can change while it runs.
    """

    command: tuple[str, ...]
    version: str
    source: Source
    meter: Callable[[Configuration], Meter]
    widest: Configuration
    environment: Mapping[str, str]
    defaults: Mapping[str, Value] | None
    live: LiveKnobs = field(default_factory=lambda: LiveKnobs({}))


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """How servers are launched: their tag, where their logs go, deadline and port.

    `listener` is told how each load goes, and what the user should know.
    """

    run_tag: str
    log_folder: Path
    startup_deadline_s: float
    port: int | None
    listener: LoadListener = NOBODY


@dataclass(frozen=True, slots=True)
class Session:
    """A server that is ready, what measures it, and who was on its GPUs before it.

    `limits` were set while it ran. `launch_s` is how long it took to get one, None if it ran
    already.
    """

    server: RunningServer
    meter: Meter
    pids_before: frozenset[int]
    limits: Limits | None
    launch_s: float | None


@dataclass(frozen=True, slots=True)
class _Kept:
    """The server that runs, what it was launched with, and its limits file if it reads one."""

    launch: Launch
    server: RunningServer
    meter: Meter
    pids_before: frozenset[int]
    limits_file: LimitsFile | None

    def serves(self, launch: Launch) -> bool:
        """Say whether it runs with the same flags, and can have the limits."""
        return self.launch.serves(launch) and self.server.exit_code() is None

    def session(self, limits: Limits | None, launch_s: float | None) -> Session:
        """Return what an evaluation needs of it."""
        return Session(self.server, self.meter, self.pids_before, limits, launch_s)


class Sessions:
    """At most one server at a time. A server that cannot be trusted any more is stopped."""

    def __init__(self, model: str, server: ServerKind, settings: LaunchSettings) -> None:
        self._model = model
        self._server = server
        self._settings = settings
        self._files = LiveFiles(settings.log_folder / "live")
        self._stack = AsyncExitStack()
        self._kept: _Kept | None = None
        self._is_fresh = False
        self._cannot_share: list[Configuration] = []
        self._no_limits = False
        self._start_ups = StartUps(settings.startup_deadline_s)
        self._memory_bytes: dict[str, int] = {}  # of each GPU before the first server on it

    def is_warm_for(self, whole: Configuration) -> bool:
        """Say whether the server that runs can serve this configuration."""
        return self._serves(self._launch(whole))

    async def get(self, whole: Configuration, name: str) -> Session:
        """Return a server under this configuration's limits: the one that runs, or a new one.

        Raises `LaunchFailedError` or `PreflightError`, and then none runs.
        """
        began_s = time.monotonic()
        launch = self._launch(whole)
        if self._serves(launch):
            session = await self._reused(launch)
            if session is not None:
                return session
        if launch.limits is not None:
            session = await self._shared(launch, whole, name)
            if session is not None:
                return session
        session = await self._started(self._server.live.clean(whole), whole, name, None)
        return replace(session, launch_s=time.monotonic() - began_s)

    async def get_clean(self, whole: Configuration, name: str) -> Session:
        """Launch exactly this configuration. Raises as `get` does."""
        return await self._started(self._server.live.clean(whole), whole, name, None)

    def distrust_limits(self, reason: str) -> None:
        """Change no limits live any more, for the rest of the run."""
        self._no_limits = True
        self._settings.listener.note(
            f"the limits of a running server are not changed, each configuration is launched: "
            f"{reason}"
        )

    async def close(self) -> None:
        """Stop the server, if one runs."""
        self._kept = None
        await self._stack.aclose()

    def _launch(self, whole: Configuration) -> Launch:
        live = self._server.live
        shared = live.shared(whole)
        if self._no_limits or shared.configuration in self._cannot_share:
            return live.clean(whole)
        return shared

    def _serves(self, launch: Launch) -> bool:
        return self._kept is not None and self._kept.serves(launch)

    async def _reused(self, launch: Launch) -> Session | None:
        """Bring the server that runs under new limits; stop it and return None if that fails."""
        kept = self._kept
        assert kept is not None
        if not self._is_fresh:
            try:
                await make_ready(kept.server, kept.limits_file, launch.limits)
            except NotReusableError as error:
                self._settings.listener.note(f"the server is launched anew: {error}")
                await self.close()
                return None
        self._is_fresh = False
        return kept.session(launch.limits, None)

    async def _shared(self, launch: Launch, whole: Configuration, name: str) -> Session | None:
        """Launch a server whose limits change while it runs; None if there can be none."""
        assert launch.limits is not None
        began_s = time.monotonic()
        try:
            file = self._files.limits_file(name)
        except OSError as error:
            self.distrust_limits(f"their file cannot be written ({error})")
            return None
        try:
            session = await self._started(launch, whole, name, file)
            if file.state is State.READY:
                await make_ready(session.server, file, launch.limits)
                self._is_fresh = False
                return replace(session, launch_s=time.monotonic() - began_s)
            self.distrust_limits(file.reason or "the server does not read its limits file")
        except NotReusableError as error:
            self._share_no_more(launch, str(error))
        except LaunchFailedError as error:
            with closing(file):
                self._after_failed_launch(launch, whole, file, error)
        await self.close()
        return None

    def _after_failed_launch(
        self, launch: Launch, whole: Configuration, file: LimitsFile, error: LaunchFailedError
    ) -> None:
        """Find out whether the limits were to blame; raises the error again if not."""
        failure = error.failure
        if file.state is State.UNSUPPORTED or is_about_scheduler(failure.reason):
            self.distrust_limits(file.reason or failure.reason)
            return
        is_same = launch.configuration.flags == whole.flags
        if is_same or failure.kind is FailureKind.INFRASTRUCTURE:
            raise error
        self._share_no_more(launch, failure.reason)

    def _share_no_more(self, launch: Launch, reason: str) -> None:
        self._cannot_share.append(launch.configuration)
        self._settings.listener.note(
            "no server is kept with the largest limits of the study, so these configurations are "
            f"launched one by one: {reason}"
        )

    async def _started(
        self, launch: Launch, whole: Configuration, name: str, file: LimitsFile | None
    ) -> Session:
        """Launch in the place of whatever runs."""
        began_s = time.monotonic()
        await self.close()
        async with AsyncExitStack() as stack:
            meter = await asyncio.to_thread(self._server.meter, whole)
            stack.enter_context(closing(meter))
            started = launch.configuration
            if file is not None:
                started = self._files.with_limits(started, file)
            states = await asyncio.to_thread(meter.states)
            self._memory_bytes = {**memory_of(states), **self._memory_bytes}
            await await_idle(self._settings.run_tag, self._memory_bytes, meter.states)
            before = pids_of(await asyncio.to_thread(meter.states))
            starts_s = time.monotonic()
            server = await stack.enter_async_context(launched(self._plan(started, name)))
            self._start_ups.took(time.monotonic() - starts_s)
            if file is not None:
                stack.callback(file.close)
            self._stack = stack.pop_all()
        self._kept = _Kept(launch, server, meter, before, file)
        self._is_fresh = True
        return self._kept.session(launch.limits, time.monotonic() - began_s)

    def _plan(self, configuration: Configuration, name: str) -> LaunchPlan:
        settings = self._settings
        return LaunchPlan(
            command=self._server.command,
            model=self._model,
            configuration=configuration,
            environment=self._server.environment,
            run_tag=settings.run_tag,
            log_path=settings.log_folder / f"{name}.log",
            startup_deadline_s=self._start_ups.deadline_s,
            port=settings.port,
        )


def pids_of(states: Iterable[DeviceState]) -> frozenset[int]:
    """Return the processes that NVML names on these GPUs."""
    return frozenset(pid for state in states for pid in state.pids or ())
