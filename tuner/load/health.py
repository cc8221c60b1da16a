"""Deciding, while a load runs, that there is no server left to load."""

from __future__ import annotations

from collections.abc import Iterable

from tuner.load.client import ClientLimits, Exchange
from tuner.records import Load

# On loopback a full backlog makes a connection wait; a refused one means that nobody listens.
_REFUSALS = 3
_LEAST_FAILURES = 10
_OPEN_LOOP_FAILURES = 30


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
