"""Ray head: whether the head of a cluster can be reached; without it nothing new begins there.

Ray ends a program that has not reached the head for a minute, with a message and an exit code of
its own. The driver is given more time than that (`PATIENCE`), looks itself, and ends in order.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from tuner.errors import OperatorNeededError

T = TypeVar("T")

PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"  # Ray's variable, in seconds
_USUAL_S = "60"  # as long as Ray waits
_TO_END_S = 120  # what Ray waits longer than this module: the run puts its store in order
_LOOK_S = 2.0  # between two looks
_ANSWER_S = 5.0  # for one


@contextmanager
def longer_patience() -> Iterator[float]:
    """Let Ray, which is imported and joins a cluster within, wait longer for a head that is gone.

    Returns how long the driver is to wait, s. What was in the environment is put back.
    """
    found = os.environ.get(PATIENCE)
    patience_s = int(found or _USUAL_S)
    os.environ[PATIENCE] = str(patience_s + _TO_END_S)
    try:
        yield float(patience_s)
    finally:
        del os.environ[PATIENCE]
        if found is not None:
            os.environ[PATIENCE] = found


class RayHead:
    """The head at an address, HOST:PORT; `patience_s` is how long it may be out of reach."""

    def __init__(self, address: str, patience_s: float) -> None:
        self._address = address
        self._patience_s = patience_s
        self._next_look_s = 0.0
        self._gone_since_s: float | None = None  # on the monotonic clock
        self.is_lost = False

    async def while_reached(self, work: asyncio.Future[T]) -> T:
        """Return what `work` does; cancels it no more than `asyncio.wait` would.

        Raises `OperatorNeededError` once the head is lost, and whatever `work` raises.
        """
        while True:
            done, _ = await asyncio.wait([work], timeout=_LOOK_S)
            if done:
                return work.result()
            await self._look()

    async def _look(self) -> None:
        if time.monotonic() >= self._next_look_s:  # all benches ask
            self._next_look_s = time.monotonic() + _LOOK_S
            began_s = time.monotonic()
            if await self._answers():
                self._gone_since_s = None
            elif self._gone_since_s is None:
                self._gone_since_s = began_s
            elif time.monotonic() - self._gone_since_s >= self._patience_s:
                self.is_lost = True
        if self.is_lost:
            raise OperatorNeededError(
                f"Ray's head at {self._address} was out of reach for {self._patience_s:.0f} s, and "
                "with it every card: start the cluster again, then resume the study"
            )

    async def _answers(self) -> bool:
        """Say whether something listens there."""
        host, _, port = self._address.rpartition(":")
        try:
            async with asyncio.timeout(_ANSWER_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True
