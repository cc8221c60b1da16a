"""Warm server: kept between evaluations, and launched again only when a configuration needs it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.configuration import Configuration, Value
from tuner.devices.device_state import pids_of
from tuner.devices.meter import Meter
from tuner.evaluation.launched.launch_sharing import REPEATS_A_LAUNCH, Launch, LiveKnobs
from tuner.measurement.listener import NOBODY, LoadListener
from tuner.records import Source
from tuner.servers.forking.fork_servers import ForkServers
from tuner.servers.idle_device import await_idle, memory_of
from tuner.servers.launch import LaunchFailedError, LaunchPlan, RunningServer, launched
from tuner.servers.ready import make_ready
from tuner.servers.server import Limits, LimitsChannel, NotReusableError, Server
from tuner.servers.start_ups import StartUps


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """The server to launch, and what measures its energy.

    Attributes:
        server: how to launch it and talk to it.
        source: emulated if the server itself is emulated.
        meter: returns the meter of the GPUs that a configuration uses.
        widest: a configuration that uses the most GPUs in the study.
        defaults: the value of each unset flag; None asks the running server.
        live: the flags that can change while the server runs.
    """

    server: Server
    source: Source
    meter: Callable[[Configuration], Meter]
    widest: Configuration
    defaults: Mapping[str, Value] | None
    live: LiveKnobs = field(default_factory=lambda: LiveKnobs({}))


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """Launch settings: tag, log folder, deadline and port of the servers.

    `listener` receives the progress of each load and messages for the user. `fork_servers` forks
    the servers of the search from processes that have imported what they need.
    """

    run_tag: str
    log_folder: Path
    startup_deadline_s: float
    port: int | None
    listener: LoadListener = NOBODY
    fork_servers: bool = False


@dataclass(frozen=True, slots=True)
class WarmServer:
    """A ready server, what measures it, and the processes that were on its GPUs before.

    `limits` were set while it ran. `launch_s` is the duration of the launch, None if it ran
    already.
    """

    server: RunningServer
    meter: Meter
    pids_before: frozenset[int]
    limits: Limits | None
    launch_s: float | None


@dataclass(frozen=True, slots=True)
class _Kept:
    """The running server, its launch, and the channel for its limits if there is one."""

    launch: Launch
    server: RunningServer
    meter: Meter
    pids_before: frozenset[int]
    channel: LimitsChannel | None
    is_forked: bool

    def serves(self, launch: Launch) -> bool:
        """Say whether it runs with the same flags and can take the limits."""
        return self.launch.serves(launch) and self.server.exit_code() is None

    def warm_server(self, limits: Limits | None, launch_s: float | None) -> WarmServer:
        """Return the server as an evaluation uses it."""
        return WarmServer(self.server, self.meter, self.pids_before, limits, launch_s)


class WarmServers:
    """Holds at most one server; stops a server that it can no longer trust."""

    def __init__(self, model: str, spec: ServerSpec, settings: LaunchSettings) -> None:
        self._model = model
        self._spec = spec
        self._settings = settings
        self._live_folder = settings.log_folder / "live"
        self._stack = AsyncExitStack()
        self._kept: _Kept | None = None
        self._is_fresh = False
        self._repeats = 0  # that the running server was given for
        self._cannot_share: list[Configuration] = []
        self._no_limits = False
        self._start_ups = StartUps(settings.startup_deadline_s)
        self._memory_bytes: dict[str, int] = {}  # of each GPU before the first server on it
        self._forks: ForkServers | None = None

    def is_warm_for(self, whole: Configuration) -> bool:
        """Say whether the running server can serve this configuration."""
        return self._serves(self._launch(whole))

    async def get(self, whole: Configuration, name: str) -> WarmServer:
        """Return a server with this configuration's limits: the running one or a new one.

        Raises `LaunchFailedError` or `PreflightError`; then no server runs.
        """
        began_s = time.monotonic()
        launch = self._launch(whole)
        if self._serves(launch):
            warm = await self._reused(launch)
            if warm is not None:
                return warm
        if launch.limits is not None:
            warm = await self._shared(launch, whole, name)
            if warm is not None:
                return warm
        clean = self._spec.live.clean(whole)
        warm = await self._started(clean, whole, name, None, self._fork_servers())
        return replace(warm, launch_s=time.monotonic() - began_s)

    async def get_clean(self, whole: Configuration, name: str) -> WarmServer:
        """Launch exactly this configuration, as a user would. Raises as `get` does."""
        return await self._started(self._spec.live.clean(whole), whole, name, None)

    async def get_for_repeat(self, whole: Configuration, name: str) -> WarmServer:
        """Return a server that was launched with exactly this configuration.

        The running one serves `REPEATS_A_LAUNCH`, made idle and its prefix cache empty before each,
        unless it was forked. Raises as `get` does.
        """
        launch, kept = self._spec.live.clean(whole), self._kept
        warm: WarmServer | None = None
        is_ordinary = kept is not None and not kept.is_forked
        if is_ordinary and self._serves(launch) and self._repeats < REPEATS_A_LAUNCH:
            warm = await self._reused(launch)
        if warm is None:
            warm = await self.get_clean(whole, name)
        self._repeats += 1
        return warm

    def distrust_limits(self, reason: str) -> None:
        """Stop changing limits of a running server, for the rest of the run."""
        self._no_limits = True
        self._settings.listener.note(
            "the limits of a running server are no longer changed, each configuration is "
            f"launched: {reason}"
        )

    async def close(self) -> None:
        """Stop the server, if one runs."""
        self._kept = None
        await self._stack.aclose()

    async def end(self) -> None:
        """Stop the server, and what others would be forked from."""
        try:
            await self.close()
        finally:
            forks, self._forks = self._forks, None
            if forks is not None:
                await asyncio.to_thread(forks.close)

    def _launch(self, whole: Configuration) -> Launch:
        live = self._spec.live
        shared = live.shared(whole)
        if self._no_limits or shared.configuration in self._cannot_share:
            return live.clean(whole)
        return shared

    def _serves(self, launch: Launch) -> bool:
        return self._kept is not None and self._kept.serves(launch)

    async def _reused(self, launch: Launch) -> WarmServer | None:
        """Set new limits on the running server; stop it and return None if that fails."""
        kept = self._kept
        assert kept is not None
        if not self._is_fresh:
            try:
                await make_ready(kept.server, kept.channel, launch.limits)
            except NotReusableError as error:
                self._settings.listener.note(f"the server is launched again: {error}")
                await self.close()
                return None
        self._is_fresh = False
        return kept.warm_server(launch.limits, None)

    async def _shared(self, launch: Launch, whole: Configuration, name: str) -> WarmServer | None:
        """Launch a server whose limits can change while it runs; None if that is impossible."""
        limits = self._spec.live.rules.limits
        assert launch.limits is not None and limits is not None
        began_s = time.monotonic()
        try:
            channel = limits.open(self._live_folder, name, launch.configuration)
        except OSError as error:
            self.distrust_limits(f"their file cannot be written ({error})")
            return None
        warm = await self._started_with(channel, launch, whole, name)
        if warm is None:
            return None
        try:
            problem = channel.problem()
            if problem is None:
                await make_ready(warm.server, channel, launch.limits)
                self._is_fresh = False
                return replace(warm, launch_s=time.monotonic() - began_s)
            self.distrust_limits(problem)
        except NotReusableError as error:
            self._share_no_more(launch, str(error))
        await self.close()
        return None

    async def _started_with(
        self, channel: LimitsChannel, launch: Launch, whole: Configuration, name: str
    ) -> WarmServer | None:
        """Launch a server that keeps the channel; None if its limits cause a failure.

        The channel is closed where no server keeps it.
        """
        with ExitStack() as unused:
            unused.callback(channel.close)
            try:
                warm = await self._started(launch, whole, name, channel, self._fork_servers())
            except LaunchFailedError as error:
                self._after_failed_launch(launch, whole, channel, error)
                return None
            unused.pop_all()
        return warm

    def _after_failed_launch(
        self, launch: Launch, whole: Configuration, channel: LimitsChannel, error: LaunchFailedError
    ) -> None:
        """Find out whether the limits caused the failure; raise the error again if not."""
        failure = error.failure
        if reason := channel.blamed_for(failure):
            self.distrust_limits(reason)
            return
        is_same = launch.configuration.flags == whole.flags
        if is_same or failure.kind.is_machines:
            raise error
        self._share_no_more(launch, failure.reason)

    def _share_no_more(self, launch: Launch, reason: str) -> None:
        self._cannot_share.append(launch.configuration)
        self._settings.listener.note(
            "no warm server can start with the largest limits of the study, so these "
            f"configurations are launched one by one: {reason}"
        )

    def _fork_servers(self) -> ForkServers | None:
        """Return what servers are forked from; None if they are launched in the ordinary way."""
        settings = self._settings
        if settings.fork_servers and self._forks is None:
            recipe = self._spec.server.forks
            if recipe is not None:
                folder = settings.log_folder / "forks"
                self._forks = ForkServers(settings.run_tag, folder, recipe)
        return self._forks

    async def _started(
        self,
        launch: Launch,
        whole: Configuration,
        name: str,
        channel: LimitsChannel | None,
        forks: ForkServers | None = None,
    ) -> WarmServer:
        """Launch in place of the running server, if any."""
        began_s = time.monotonic()
        await self.close()
        async with AsyncExitStack() as stack:
            meter = await asyncio.to_thread(self._spec.meter, whole)
            stack.enter_context(closing(meter))
            started = launch.configuration if channel is None else channel.configuration
            states = await asyncio.to_thread(meter.states)
            self._memory_bytes = {**memory_of(states), **self._memory_bytes}
            await await_idle(self._settings.run_tag, self._memory_bytes, meter.states)
            before = pids_of(await asyncio.to_thread(meter.states))
            plan = replace(self._plan(started, name), forks=forks)
            starts_s = time.monotonic()
            server = await stack.enter_async_context(launched(plan))
            self._start_ups.took(time.monotonic() - starts_s)
            if channel is not None:
                stack.callback(channel.close)
            self._stack = stack.pop_all()
        self._kept = _Kept(launch, server, meter, before, channel, forks is not None)
        self._is_fresh, self._repeats = True, 0
        return self._kept.warm_server(launch.limits, time.monotonic() - began_s)

    def _plan(self, configuration: Configuration, name: str) -> LaunchPlan:
        settings = self._settings
        return LaunchPlan(
            server=self._spec.server,
            model=self._model,
            configuration=configuration,
            run_tag=settings.run_tag,
            log_path=settings.log_folder / f"{name}.log",
            startup_deadline_s=self._start_ups.deadline_s,
            port=settings.port,
        )
