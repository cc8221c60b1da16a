"""Warm server, between two evaluations: its limits changed, drained, its prefix cache empty."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import aiohttp

from tuner.servers.server import (
    Endpoint,
    Limits,
    LimitsChannel,
    NotReusableError,
    ServerUnreachableError,
)

_CANARY_S = 120.0  # the first request of a server may compile kernels
_IDLE_S = 60.0
_POLL_S = 0.1
SETTLE_S = 1.0  # clocks and allocators after a change; the window warms up by itself after that


async def make_ready(
    server: Endpoint, channel: LimitsChannel | None, limits: Limits | None
) -> None:
    """Bring a server to where a fresh one is: idle, with an empty prefix cache, under `limits`.

    An idle engine makes no step, so a small request of our own (a canary) carries every change to
    it, and shows that it still generates. Raises `NotReusableError`.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_CANARY_S)) as session:
        try:
            if channel is not None and limits is not None:
                await channel.change(limits, partial(_canary, session, server))
            await _drain(session, server)
            await _forget_prefixes(session, server)
        except (aiohttp.ClientError, TimeoutError, ValueError, ServerUnreachableError) as error:
            raise NotReusableError(f"the server does not answer: {error or 'timed out'}") from error
    await asyncio.sleep(SETTLE_S)


async def _canary(session: aiohttp.ClientSession, server: Endpoint) -> None:
    """Have the engine make a few tokens."""
    if not await server.api.generates(session, server.base_url, server.served_name):
        raise NotReusableError("the server is up, but its engine no longer generates")


async def _drain(session: aiohttp.ClientSession, server: Endpoint) -> None:
    """Wait until nothing of the load before runs or waits.

    The server's gauges are those of its last step, so it is given one before they are read.
    """
    deadline_s = time.monotonic() + _IDLE_S
    while True:
        await _canary(session, server)
        now = await server.api.sample(session, server.base_url)
        if now.running is None or now.waiting is None:
            raise NotReusableError("the server does not say how many requests run and wait")
        if now.running + now.waiting == 0:
            return
        if time.monotonic() >= deadline_s:
            raise NotReusableError(
                f"{now.running:g} requests run and {now.waiting:g} wait {_IDLE_S:g} s after the "
                "load before ended"
            )
        await asyncio.sleep(_POLL_S)


async def _forget_prefixes(session: aiohttp.ClientSession, server: Endpoint) -> None:
    """Empty the prefix cache: the same prompts are sent again in the next evaluation."""
    deadline_s = time.monotonic() + _IDLE_S
    while not await server.api.reset_prefix_cache(session, server.base_url):
        if time.monotonic() >= deadline_s:
            raise NotReusableError("the server does not empty its prefix cache")
        await asyncio.sleep(_POLL_S)
