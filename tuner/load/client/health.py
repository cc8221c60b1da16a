"""Server health: decides, while a load runs, that there is no server left to load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from tuner.load.client.client import ClientLimits, Exchange
from tuner.records import Load, RequestRecord

# On loopback a full backlog makes a connection wait; a refused one means that nobody listens.
_REFUSALS = 3
_LEAST_FAILURES = 10
_OPEN_LOOP_FAILURES = 30
# At the end of a load a silence is too long if it is this long, and so much longer than any before
# it: a long prompt alone on a server is silent, too.
_LEAST_SILENCE_S = 20.0
_LONGER = 3.0


class ServerHealth:
    """Follows how requests end; `gone` says why the load should stop, or is None.

    A server is gone after a few refused connections in a row, after so many failures in a row
    that every closed-loop client has failed three times, or when requests are waiting and no
    token of any of them has arrived for as long as one answer may be silent.
    """

    def __init__(self, load: Load, limits: ClientLimits) -> None:
        self.gone: str | None = None
        self._silence_s = limits.silence_s
        self._failures_allowed = (
            _OPEN_LOOP_FAILURES
            if load.concurrency is None
            else max(_LEAST_FAILURES, 3 * load.concurrency)
        )
        self._failures = 0
        self._refusals = 0
        self._last_token_s = float("-inf")

    def ended(self, exchange: Exchange) -> None:
        """Take in how a request ended."""
        if exchange.last_token_s is not None:
            self._last_token_s = max(self._last_token_s, exchange.last_token_s)
        if exchange.error is None:
            self._failures = self._refusals = 0
            return
        self._failures += 1
        self._refusals = self._refusals + 1 if exchange.refused else 0
        if self._refusals >= _REFUSALS or self._failures >= self._failures_allowed:
            self.gone = f"{self._failures} requests failed in a row, the last: {exchange.error}"

    def check_silence(self, under_way: Iterable[Exchange], now_s: float) -> None:
        """Look whether the server still produces anything; cheap while it does."""
        if now_s - self._last_token_s <= self._silence_s:
            return
        exchanges = list(under_way)
        if not exchanges:
            return
        tokens_s = [e.last_token_s for e in exchanges if e.last_token_s is not None]
        self._last_token_s = max([self._last_token_s, *tokens_s])
        waiting_since_s = min(e.sent_s for e in exchanges)
        if now_s - max(self._last_token_s, waiting_since_s) > self._silence_s:
            self.gone = (
                f"{len(exchanges)} requests under way and not one token for {self._silence_s:g} s"
            )

    def check_end(
        self, under_way: Sequence[Exchange], records: Iterable[RequestRecord], now_s: float
    ) -> None:
        """Look, once the load is over, whether the server had frozen: too late to end it early."""
        if self.gone is not None or not under_way:
            return
        known = [*records, *(exchange.record(now_s) for exchange in under_way)]
        waiting_since_s = min(exchange.sent_s for exchange in under_way)
        arrived_s = np.sort(np.concatenate([r.token_times_s for r in known]))
        last_s = max(waiting_since_s, arrived_s[-1] if arrived_s.size else waiting_since_s)
        if now_s - last_s <= _LEAST_SILENCE_S:
            return
        since_s = np.concatenate([[min(r.sent_s for r in known)], arrived_s])
        before_s = float(np.diff(since_s).max()) if arrived_s.size else 0.0
        if now_s - last_s > _LONGER * before_s:
            self.gone = (
                f"{len(under_way)} requests under way and not one token for the last "
                f"{now_s - last_s:.0f} s"
            )
