"""Switch costs: seconds and joules of a start, of sleep and of waking, on a server of our own.

Energy is the difference of the meter's counter over an action: between the readings that follow its
two ends, scaled to its length.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from contextlib import closing
from dataclasses import dataclass, replace

import aiohttp

from tuner.analysis.deployment.switching import LEVELS, Sleep, Switching
from tuner.configuration import Configuration
from tuner.devices.emulated.activity import ActivityDriven
from tuner.devices.meter import Meter, PowerReading
from tuner.evaluation.launched.warm_server import ServerSpec, WarmServer, WarmServers
from tuner.records import Failure, FailureKind, Measurement
from tuner.servers.launch import RunningServer
from tuner.servers.server import NotAnsweredError, Server

REST_S = 20.0  # of a window without a server, and of one asleep
_READING_S = 5.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Cost:
    """The duration and energy of an action."""

    seconds: float
    energy_j: float

    @property
    def power_w(self) -> float:
        """Its mean power."""
        return self.energy_j / self.seconds


async def switching(
    servers: WarmServers, spec: ServerSpec, whole: Configuration, name: str, rest_s: float = REST_S
) -> Measurement | Failure:
    """Measure the GPUs without a server, a start of `whole`, and sleep and waking.

    Without a server, and asleep at each level, they are watched for `rest_s`.

    The server is able to sleep, where its version can. None runs afterwards: other evaluations need
    one that never slept. Raises `LaunchFailedError` or `PreflightError` if it does not start.
    """
    await servers.close()
    meter = await asyncio.to_thread(spec.meter, whole)
    with closing(meter):
        if isinstance(meter, ActivityDriven):
            reason = "the energy of a start is only known of GPUs that are read"
            return Failure(FailureKind.CONFIGURATION, reason)
        starts_s = time.monotonic()
        try:
            found = await _costs(servers, meter, _able_to_sleep(spec.server, whole), name, rest_s)
        except TimeoutError:
            reason = "the meter gave no reading beside a start"
            return Failure(FailureKind.INFRASTRUCTURE, reason)
        finally:
            await servers.close()
        ended_s = time.monotonic()
        return Measurement(found.metrics(), starts_s, ended_s, spec.source, meter.source)


async def _costs(
    servers: WarmServers, meter: Meter, whole: Configuration, name: str, rest_s: float
) -> Switching:
    off_w = await rest(meter, rest_s)
    launched: list[WarmServer] = []

    async def start() -> bool:
        launched.append(await servers.get_clean(whole, name))
        return True

    started = await cost_of(meter, start())
    sleeps = await sleep_costs(launched[0].server, meter, rest_s)
    return Switching(started.seconds, started.energy_j, off_w, sleeps)


def _able_to_sleep(server: Server, whole: Configuration) -> Configuration:
    """Return the configuration with the flags of sleep, if this server knows them."""
    flags = server.rules.sleep_flags
    if any(server.unknown_flag(name) is not None for name in flags):
        return whole
    return replace(whole, flags={**whole.flags, **flags})


async def cost_of(meter: Meter, action: Awaitable[bool]) -> Cost:
    """Measure an action. Raises `NotAnsweredError` if it returns False.

    Raises `TimeoutError` if the meter gives no reading, and what the action raises.
    """
    before = await _reading(meter)
    began_s = time.monotonic()
    done = await action
    took_s = time.monotonic() - began_s
    after = await _reading(meter)
    if not done:
        raise NotAnsweredError("the server did not do it")
    energy_j = after.energy_j - before.energy_j
    return Cost(took_s, energy_j * took_s / (after.time_s - before.time_s))


async def rest(meter: Meter, window_s: float) -> float:
    """Return the mean power while nothing is asked for, W."""

    async def wait() -> bool:
        await asyncio.sleep(window_s)
        return True

    return (await cost_of(meter, wait())).power_w


async def sleep_costs(server: RunningServer, meter: Meter, window_s: float) -> tuple[Sleep, ...]:
    """Measure each level of sleep that the server has; a server that cannot sleep has none.

    Awake means that it answers.
    """
    found = []
    async with aiohttp.ClientSession() as session:
        for level in LEVELS:
            try:
                found.append(await _sleep_cost(server, meter, session, level, window_s))
            except (NotAnsweredError, aiohttp.ClientError):
                break
    return tuple(found)


async def _sleep_cost(
    server: RunningServer,
    meter: Meter,
    session: aiohttp.ClientSession,
    level: int,
    window_s: float,
) -> Sleep:
    api, url = server.api, server.base_url

    async def wake() -> bool:
        return await api.wake(session, url, level) and await api.generates(
            session, url, server.served_name
        )

    asleep = await cost_of(meter, api.sleep(session, url, level))
    power_w = await rest(meter, window_s)
    awake = await cost_of(meter, wake())
    return Sleep(level, asleep.seconds, asleep.energy_j, power_w, awake.seconds, awake.energy_j)


async def _reading(meter: Meter) -> PowerReading:
    """Return a reading that was taken from now on."""
    now_s = time.monotonic()
    async with asyncio.timeout(_READING_S):
        while True:
            reading = meter.read(time.monotonic())
            if reading is not None and reading.time_s >= now_s:
                return reading
            await asyncio.sleep(_POLL_S)
