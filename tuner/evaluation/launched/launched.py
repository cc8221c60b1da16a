"""Launched evaluation: start a server, keep it warm, and measure it in real time."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np

from tuner.configuration import Configuration, Value
from tuner.devices.device_state import DeviceState, pids_of
from tuner.devices.energy_window import WindowVerdict, flag_in_words
from tuner.devices.leases.claims import claim
from tuner.devices.meter import WindowContext
from tuner.errors import PreflightError
from tuner.evaluation.believed_energy import disbelief, idle_power, judged
from tuner.evaluation.device_knobs import DeviceControl, device_defaults
from tuner.evaluation.evaluator import (
    IDLE_S,
    Evaluation,
    LoadRun,
    MeasurementPlan,
    Testbed,
)
from tuner.evaluation.launched.answers import AnswerChecks
from tuner.evaluation.launched.ended_server import death_of, launch_failure, require_whole_gpu
from tuner.evaluation.launched.switch_costs import switching
from tuner.evaluation.launched.warm_server import (
    LaunchSettings,
    ServerSpec,
    WarmServer,
    WarmServers,
)
from tuner.measurement.load_run import run_idle, run_load
from tuner.records import Failure, FailureKind, Measurement, RawRun, Timing
from tuner.servers.launch import LaunchFailedError, RunningServer, read_log
from tuner.servers.processes import tagged_processes
from tuner.servers.server import NotAnsweredError, ServerUnreachableError

COOL_DOWN_S = 30.0
BACK_OFF_S = (10.0, 60.0)  # after one infrastructure fault, and after more of them in a row
_CLIENT_S = 900.0  # beside warm-up and window: longer than a client waits for one token


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A run, its warnings, and whether its energy is trustworthy."""

    raw: RawRun
    warnings: tuple[str, ...]
    verdict: WindowVerdict


class ServedEvaluator:
    """Measures configurations on a warm server, kept as long as it can serve them.

    `knobs` sets the GPUs' power limit and clock; None leaves them unchanged.
    """

    needs_guardian = True

    def __init__(
        self,
        spec: ServerSpec,
        plan: MeasurementPlan,
        settings: LaunchSettings,
        knobs: DeviceControl | None,
    ) -> None:
        self._spec = spec
        self._log = spec.server.log
        self._plan = plan
        self._settings = settings
        self._knobs = knobs
        self._servers = WarmServers(plan.model, spec, settings)
        self._testbed: Testbed | None = None  # once it is prepared
        self._gpus: tuple[DeviceState, ...] = ()
        self._claims = ExitStack()
        self._faults_in_a_row = 0
        self._last_fault_s = 0.0  # on the monotonic clock
        self._answers = AnswerChecks(plan, self._baseline_server)

    async def prepare(self) -> Testbed:
        """Return the testbed; takes the GPUs, and leases of those whose limits are knobs.

        A bench that is found again, by the next driver or after a loss, has them already.
        """
        if self._testbed is None:
            self._testbed = await self._prepared()
        return self._testbed

    async def _prepared(self) -> Testbed:
        meter = await asyncio.to_thread(self._spec.meter, self._spec.widest)
        with closing(meter):
            self._gpus = await asyncio.to_thread(meter.states)
        with claim(gpu.uuid for gpu in self._gpus) as claims:
            if self._knobs is not None:
                await asyncio.to_thread(self._knobs.open, self._gpus)
            self._claims = claims.pop_all()
        return Testbed(
            kind="live",
            server_version=self._spec.server.version,
            gpu=meter.gpu,
            driver=meter.driver,
            energy_source=meter.source,
            latency_source=self._spec.source,
            gpu_uuids=tuple(sorted(state.uuid for state in self._gpus)),
        )

    async def defaults(self) -> Mapping[str, Value]:
        """Start the default configuration, ask for its settings; trial 0 reuses the server."""
        await self._set_device(Configuration())
        full = self._plan.full(self._plan.baseline)
        try:
            warm = await self._servers.get_clean(full, "baseline")
        except LaunchFailedError as error:
            log = f" (log: {error.failure.log_path})" if error.failure.log_path else ""
            raise PreflightError(
                f"the server does not start in {self._plan.baseline_name}: {error.failure.reason}"
                f"{log}; fix it, or set what it needs with --set, or under `fixed:` in the search "
                "space"
            ) from error
        with suppress(NotAnsweredError):  # the confirmation asks again
            await self._answers.remember_baseline(warm.server)
        known = self._spec.defaults
        flags = await _reported_defaults(warm.server) if known is None else known
        self._plan.require_room(flags, self._spec.server.rules.context_flag)
        return {**flags, **device_defaults(self._gpus), **self._plan.load_defaults}

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        """Measure on the warm server if it can serve this configuration, else launch one."""
        full = self._plan.full(configuration)
        if reason := self._spec.live.refusal(full):
            return Evaluation(Failure(FailureKind.CONFIGURATION, reason), None, (), Timing(0.0))
        name = f"trial-{trial:04d}"
        return await self._evaluate(
            configuration, lambda: self._servers.get(full, name), self._plan.run_of(configuration)
        )

    def is_warm_for(self, configuration: Configuration) -> bool:
        """Say whether the server that runs can serve this configuration."""
        return self._servers.is_warm_for(self._plan.full(configuration))

    async def confirm(self, configuration: Configuration, repeat: int, traffic: int) -> Evaluation:
        """Measure on a server launched with exactly this configuration, then ask the probe prompts.

        After a failure the next one is launched again, whosever fault it was.
        """
        full, name = self._plan.full(configuration), f"confirm-{repeat:04d}"
        launched: list[WarmServer] = []

        async def get() -> WarmServer:
            launched.append(await self._servers.get_for_repeat(full, name))
            return launched[0]

        run = self._plan.run_of(configuration, traffic)
        found = await self._evaluate(configuration, get, run)
        if not launched or not isinstance(found.result, Measurement):
            await self._servers.close()
            return found
        return await self._answers.asked(found, configuration, launched[0].server)

    async def _baseline_server(self) -> RunningServer:
        """Launch the baseline, whose pictures others are compared with."""
        await self._set_device(Configuration())
        full = self._plan.full(self._plan.baseline)
        try:
            return (await self._servers.get_clean(full, "baseline")).server
        except (LaunchFailedError, PreflightError) as error:
            raise NotAnsweredError(f"{self._plan.baseline_name} does not start: {error}") from None

    async def probe(self, configuration: Configuration, repeat: int, run: LoadRun) -> Evaluation:
        """Measure another load on the warm server if it can serve this configuration."""
        full, name = self._plan.full(configuration), f"probe-{repeat:04d}"
        return await self._evaluate(configuration, lambda: self._servers.get(full, name), run)

    async def idle(
        self, configuration: Configuration, repeat: int, window_s: float = IDLE_S
    ) -> Evaluation:
        """Measure the power of the warm server without requests."""
        began_s = time.monotonic()
        power_limit_w = await self._set_device(configuration)
        full = self._plan.full(configuration)
        warm = await self._got(lambda: self._servers.get(full, f"idle-{repeat:04d}"), began_s)
        if isinstance(warm, Evaluation):
            return warm
        before = await asyncio.to_thread(warm.meter.states)
        raw = await run_idle(warm.server, warm.meter, window_s, latency_source=self._spec.source)
        verdict = await self._judged(warm, raw, before, power_limit_w)
        result = idle_power(raw, verdict)
        if (exit_code := warm.server.exit_code()) is not None:
            reason = f"the server ended with code {exit_code} while nothing was asked of it"
            result = Failure(FailureKind.UNSTABLE, reason, warm.server.log_path)
        warnings = tuple(map(flag_in_words, verdict.flags))
        return Evaluation(result, raw, warnings, Timing(time.monotonic() - began_s, warm.launch_s))

    async def switching(self, configuration: Configuration, repeat: int) -> Evaluation:
        """Measure the GPUs without a server, a start, and sleep and waking if the server can."""
        began_s = time.monotonic()
        await self._set_device(configuration)
        whole, name = self._plan.full(configuration), f"switching-{repeat:04d}"
        result: Measurement | Failure
        try:
            result = await switching(self._servers, self._spec, whole, name)
        except (LaunchFailedError, PreflightError) as error:
            result = launch_failure(self._log, error)
        return Evaluation(result, None, (), Timing(time.monotonic() - began_s))

    async def _evaluate(
        self,
        configuration: Configuration,
        get: Callable[[], Awaitable[WarmServer]],
        run: LoadRun,
    ) -> Evaluation:
        """Measure; after faults of the machine wait first, so that it can recover.

        Time that has passed since the fault counts: whoever asks may have waited too.
        """
        if self._faults_in_a_row:
            back_off_s = BACK_OFF_S[min(self._faults_in_a_row, len(BACK_OFF_S)) - 1]
            await asyncio.sleep(back_off_s - (time.monotonic() - self._last_fault_s))
        found = await self._evaluate_now(configuration, get, run)
        is_fault = isinstance(found.result, Failure) and found.result.kind.is_machines
        self._faults_in_a_row = self._faults_in_a_row + 1 if is_fault else 0
        self._last_fault_s = time.monotonic()
        return found

    async def _evaluate_now(
        self,
        configuration: Configuration,
        get: Callable[[], Awaitable[WarmServer]],
        run: LoadRun,
    ) -> Evaluation:
        """Set the GPUs' limits (they settle while a server loads), get a server, measure."""
        began_s = time.monotonic()
        power_limit_w = await self._set_device(configuration)
        warm = await self._got(get, began_s)
        if isinstance(warm, Evaluation):
            return warm
        try:
            found = await self._measure(warm, power_limit_w, run)
            if not found.verdict.valid and await _cool_down(warm.server):
                found = await self._measure(warm, power_limit_w, run)
        except TimeoutError:
            await self._servers.close()
            failure = Failure(
                FailureKind.INFRASTRUCTURE,
                f"the load did not end {_CLIENT_S:g} s after its window had to: the client hangs",
                warm.server.log_path,
            )
            return Evaluation(failure, None, (), Timing(time.monotonic() - began_s))
        exit_code = warm.server.exit_code()
        result = self._result(warm, exit_code, found, run)
        if isinstance(result, Failure) and result.kind is FailureKind.UNSTABLE:
            await self._servers.close()  # the server itself may be at fault
        return Evaluation(
            result,
            found.raw,
            (*found.warnings, *map(flag_in_words, found.verdict.flags)),
            Timing(time.monotonic() - began_s, warm.launch_s),
        )

    async def _got(
        self, get: Callable[[], Awaitable[WarmServer]], began_s: float
    ) -> WarmServer | Evaluation:
        """Return a server, or the evaluation, begun then, that failed for want of one."""
        try:
            return await get()
        except (LaunchFailedError, PreflightError) as error:
            elapsed_s = time.monotonic() - began_s
            launch_s = elapsed_s if isinstance(error, LaunchFailedError) else None
            failure = launch_failure(self._log, error)
            return Evaluation(failure, None, (), Timing(elapsed_s, launch_s))

    async def _set_device(self, configuration: Configuration) -> float | None:
        """Apply the device knobs; return the power limit in force, W, None if unchanged."""
        if self._knobs is None:
            return None
        return await asyncio.to_thread(self._knobs.apply, configuration)

    def _result(
        self, warm: WarmServer, exit_code: int | None, found: JudgedRun, run: LoadRun
    ) -> Measurement | Failure:
        raw, server, result = found.raw, warm.server, run.reduce(found.raw)
        if exit_code is not None:
            require_whole_gpu(self._log, server.log_path)
            return death_of(self._log, server, exit_code)
        if isinstance(result, Failure):
            require_whole_gpu(self._log, server.log_path)
            if self._log.has_dead_engine(read_log(server.log_path)):
                death = death_of(self._log, server, None)
                return dataclasses.replace(death, reason=f"{death.reason} ({result.reason})")
            return dataclasses.replace(result, log_path=server.log_path)
        if exceeded := self._exceeded(warm, raw):
            self._servers.distrust_limits(exceeded)
            return Failure(FailureKind.INFRASTRUCTURE, exceeded, server.log_path)
        return disbelief(found.verdict, server.log_path) or result

    def _exceeded(self, warm: WarmServer, raw: RawRun) -> str | None:
        """Describe by how much the server exceeded a limit set while it ran; None if it did not."""
        rules = self._spec.server.rules.limits
        limit = None if rules is None or warm.limits is None else rules.most_running(warm.limits)
        start_s, end_s = raw.window_start_s, raw.window_end_s
        inside = (raw.server.times_s >= start_s) & (raw.server.times_s <= end_s)
        if limit is None or not inside.any():
            return None
        most = float(np.max(raw.server.running[inside]))
        return f"{most:g} requests ran under a limit of {limit}" if most > limit else None

    async def _measure(
        self,
        warm: WarmServer,
        power_limit_w: float | None,
        run: LoadRun,
    ) -> JudgedRun:
        before = await asyncio.to_thread(warm.meter.states)
        window = run.window
        async with asyncio.timeout(window.latest_start_s + window.longest_window_s + _CLIENT_S):
            raw, warnings = await run_load(
                warm.server,
                run.requests(),
                run.load,
                warm.meter,
                window,
                latency_source=self._spec.source,
                listener=self._settings.listener,
            )
        return JudgedRun(raw, warnings, await self._judged(warm, raw, before, power_limit_w))

    async def _judged(
        self,
        warm: WarmServer,
        raw: RawRun,
        before: tuple[DeviceState, ...],
        power_limit_w: float | None,
    ) -> WindowVerdict:
        context = WindowContext(before, self._own_pids(warm, before), power_limit_w)
        return await judged(warm.meter, raw, context)

    def _own_pids(self, warm: WarmServer, states: tuple[DeviceState, ...]) -> set[int]:
        """Return the server's processes as NVML may name them.

        In a container NVML reports pids of the host, which are unknown here. Pids that appeared
        with the server are then taken to be the server's.
        """
        tagged = {process.pid for process in tagged_processes(self._settings.run_tag)}
        came = pids_of(states) - warm.pids_before
        return tagged | {pid for pid in came if not Path(f"/proc/{pid}").exists()}

    async def close(self) -> None:
        """Stop the server, then restore the GPUs."""
        try:
            await self._servers.end()
        finally:
            try:
                if self._knobs is not None:
                    await asyncio.to_thread(self._knobs.close)
            finally:
                self._claims.close()


async def _cool_down(server: RunningServer) -> bool:
    """Wait before a window is repeated; False if the server's state could not be reset.

    The same prompts are sent again, so the prefix cache must be empty.
    """
    await asyncio.sleep(COOL_DOWN_S)
    try:
        async with aiohttp.ClientSession() as session:
            return await server.api.reset_prefix_cache(session, server.base_url)
    except aiohttp.ClientError:
        return False


async def _reported_defaults(server: RunningServer) -> Mapping[str, Value]:
    """Return the values of the flags that were not set; empty if the server does not say."""
    async with aiohttp.ClientSession() as session:
        try:
            settings = await server.api.settings(session, server.base_url)
        except ServerUnreachableError as error:
            raise PreflightError(
                f"the server in its default configuration does not report its settings: "
                f"{error}; try again"
            ) from error
    return {} if settings is None else settings
