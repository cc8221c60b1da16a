"""A running server between two evaluations: well, idle, and under the limits it shall have."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tuner.configuration import Configuration, Value
from tuner.servers.launch import RunningServer
from tuner.servers.vllm import live_limits
from tuner.servers.vllm.counters import ServerUnreachableError, scrape
from tuner.servers.vllm.live_limits import FILE_VARIABLE, Limits, LimitsFile

_MODULE = "tuner_live_limits"
_CANARY_TOKENS = 4
_CANARY_S = 120.0  # the first request of a server may compile kernels
_IDLE_S = 60.0
_POLL_S = 0.1
SETTLE_S = 1.0  # clocks and allocators after a change; the window warms up by itself after that


class NotReusableError(Exception):
    """The server cannot be trusted with another evaluation; the text says why."""


@dataclass(frozen=True, slots=True)
class LiveFiles:
    """The folder that holds the scheduler for the servers of a run, and their limits files."""

    folder: Path

    def limits_file(self, name: str) -> LimitsFile:
        """Create the limits file of one server, and put the scheduler beside it.

        Raises `OSError`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{_MODULE}.py").write_bytes(_source())
        return LimitsFile.create(self.folder / f"{name}.limits")

    def with_limits(self, configuration: Configuration, file: LimitsFile) -> Configuration:
        """Return the configuration whose server takes its limits from `file`."""
        path = configuration.environment.get("PYTHONPATH", os.environ.get("PYTHONPATH"))
        environment: Mapping[str, Value] = {
            "PYTHONPATH": os.pathsep.join([str(self.folder), *([str(path)] if path else [])]),
            FILE_VARIABLE: str(file.path),
        }
        scheduler = f"{_MODULE}.{live_limits.LiveScheduler.__name__}"
        return Configuration(
            flags={**configuration.flags, "scheduler_cls": scheduler},
            environment={**configuration.environment, **environment},
            device=configuration.device,
            load=configuration.load,
        )


def _source() -> bytes:
    return Path(live_limits.__file__).read_bytes()


def is_about_scheduler(reason: str) -> bool:
    """Say whether a server that did not start objected to the scheduler that it was given."""
    return any(word in reason for word in (_MODULE, "scheduler-cls", "scheduler_cls"))


async def make_ready(server: RunningServer, file: LimitsFile | None, limits: Limits | None) -> None:
    """Bring a server to where a fresh one is: idle, with an empty prefix cache, under `limits`.

    An idle engine makes no step, so a small request of our own (a canary) carries every change to
    it, and shows that it still generates. Raises `NotReusableError`.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_CANARY_S)) as session:
        try:
            if file is not None and limits is not None:
                await _change(session, server, file, limits)
            await _drain(session, server)
            await _forget_prefixes(session, server)
        except (aiohttp.ClientError, TimeoutError, ValueError, ServerUnreachableError) as error:
            raise NotReusableError(f"the server does not answer: {error or 'timed out'}") from error
    await asyncio.sleep(SETTLE_S)


async def _change(
    session: aiohttp.ClientSession, server: RunningServer, file: LimitsFile, limits: Limits
) -> None:
    """Ask for limits and see them acknowledged; a server keeps to its own where those are lower."""
    generation = file.want(limits)
    await _canary(session, server)
    applied = file.applied
    if applied.generation != generation:
        raise NotReusableError("the server works, but does not take new limits")
    if applied.limits != limits.under(file.most):
        raise NotReusableError(f"the server took {applied.limits} where {limits} was asked for")


async def _canary(session: aiohttp.ClientSession, server: RunningServer) -> None:
    """Have the engine make a few tokens."""
    asked = {
        "model": server.served_name,
        "prompt": [5, 6, 7],
        "max_tokens": _CANARY_TOKENS,
        "ignore_eos": True,
        "detokenize": False,
    }
    async with session.post(f"{server.base_url}/v1/completions", json=asked) as reply:
        made = (await reply.json()).get("usage") if reply.status == 200 else None
    if not isinstance(made, dict) or made.get("completion_tokens") != _CANARY_TOKENS:
        raise NotReusableError("the server is up, but its engine no longer generates")


async def _drain(session: aiohttp.ClientSession, server: RunningServer) -> None:
    """Wait until nothing of the load before runs or waits.

    The server's gauges are those of its last step, so it is given one before they are read.
    """
    deadline_s = time.monotonic() + _IDLE_S
    while True:
        await _canary(session, server)
        now = await scrape(session, server.base_url)
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


async def _forget_prefixes(session: aiohttp.ClientSession, server: RunningServer) -> None:
    """Empty the prefix cache: the same prompts are sent again in the next evaluation."""
    deadline_s = time.monotonic() + _IDLE_S
    while not await prefix_cache_is_reset(session, server.base_url):
        if time.monotonic() >= deadline_s:
            raise NotReusableError("the server does not empty its prefix cache")
        await asyncio.sleep(_POLL_S)


async def prefix_cache_is_reset(session: aiohttp.ClientSession, base_url: str) -> bool:
    """Have the prefix cache emptied; False if that failed, or the server has no such route.

    Newer vLLMs say whether it worked, which it does not while requests hold blocks.
    """
    async with session.post(f"{base_url}/reset_prefix_cache") as reply:
        if reply.status != 200:
            return False
        answer = await reply.read()
        return not answer or b"false" not in answer.lower()
