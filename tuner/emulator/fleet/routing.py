"""Routing: which running replica takes a request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tuner.records import FloatArray, Request


class Routing(StrEnum):
    """How requests are spread over the running replicas."""

    LEAST_BUSY = "least-busy"  # the fewest requests for its capacity
    ROUND_ROBIN = "round-robin"
    CONSOLIDATE = "consolidate"  # fill one replica before the next
    BY_LENGTH = "by-length"  # short prompts and long ones apart
    BY_ANSWER = "by-answer"  # short answers and long ones apart, as far as they can be told


@dataclass(frozen=True, slots=True, eq=False)
class Replica:
    """A running replica as a router sees it.

    `place` is its number in the fleet, `load` how many requests it has, `capacity` what it takes,
    requests/s, and `limit` up to how many requests at once it is filled.
    """

    place: int
    load: int
    capacity: float
    limit: int


Router = Callable[[Sequence[Replica], Request], int]  # replicas in order -> place


def router_of(routing: Routing, sample: Sequence[Request]) -> Router:
    """Return a router; `sample` is one of what comes, for routing by length."""
    if routing is Routing.ROUND_ROBIN:
        return _RoundRobin()
    if routing is Routing.BY_LENGTH:
        return _ByLength(_prompt_tokens, sample)
    if routing is Routing.BY_ANSWER:
        return _ByLength(_answer_tokens, sample)
    return least_busy if routing is Routing.LEAST_BUSY else consolidated


def least_busy(replicas: Sequence[Replica], _: Request) -> int:
    """Return the replica with the fewest requests for its capacity."""
    return min(replicas, key=lambda r: (r.load / r.capacity, r.place)).place


def consolidated(replicas: Sequence[Replica], request: Request) -> int:
    """Return the first replica that is not full; if all are, the least busy one."""
    for replica in replicas:
        if replica.load < replica.limit:
            return replica.place
    return least_busy(replicas, request)


class _RoundRobin:
    """Each replica in turn, as often as the others."""

    def __init__(self) -> None:
        self._count = -1

    def __call__(self, replicas: Sequence[Replica], _: Request) -> int:
        self._count += 1
        return replicas[self._count % len(replicas)].place


def _prompt_tokens(request: Request) -> int:
    return len(request.prompt_token_ids)


def _answer_tokens(request: Request) -> int:
    """Return how long an answer becomes: a router that foresees it exactly is the best case."""
    return request.output_tokens


class _ByLength:
    """The shortest requests to the first replica, and so on, with as many tokens for each."""

    def __init__(self, length: Callable[[Request], int], sample: Sequence[Request]) -> None:
        self._length = length
        self._tokens: FloatArray = np.sort(np.array([length(r) for r in sample], dtype=np.float64))
        self._shares: FloatArray = np.cumsum(self._tokens) / self._tokens.sum()

    def __call__(self, replicas: Sequence[Replica], request: Request) -> int:
        at = int(np.searchsorted(self._tokens, self._length(request)))
        share = float(self._shares[min(at, len(self._shares) - 1)])
        capacity = np.cumsum([replica.capacity for replica in replicas])
        place = int(np.searchsorted(capacity / capacity[-1], share))
        return replicas[min(place, len(replicas) - 1)].place
