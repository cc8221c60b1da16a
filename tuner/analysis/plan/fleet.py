"""Fleet states: how many replicas of each type run and sleep, and the moves between states.

A move changes one replica: start (off to running), wake, sleep, stop (running to off) and drop
(asleep to off). Its cost is linear in the replicas moved, so the cheapest way between two states
is a sequence of moves of each kind, found by relaxing states along each kind in turn. Starts come
first: a replica is started on GPUs that were free in the interval before, in which it loads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from math import inf

import numpy as np

from tuner.analysis.plan.demand import Counts
from tuner.analysis.plan.replica_type import ReplicaType
from tuner.records import FloatArray

__all__ = ["Counts", "Fleet", "Move", "cost_of", "gpu_off_w", "states_in"]


class Move(StrEnum):
    """What can happen to a replica between two intervals, in the order in which it is done."""

    START = "start"
    WAKE = "wake"
    SLEEP = "sleep"
    STOP = "stop"
    DROP = "drop"  # end a server that sleeps


_DELTAS = {
    Move.START: (1, 0),
    Move.WAKE: (1, -1),
    Move.SLEEP: (-1, 1),
    Move.STOP: (-1, 0),
    Move.DROP: (0, -1),
}


@dataclass(frozen=True, slots=True, eq=False)
class _Edges:
    """Where `count` moves of one kind lead: states by their numbers; `cost_j` is of all of them."""

    move: Move
    sources: Counts
    targets: Counts
    cost_j: float


class Fleet:
    """Every state of a fleet of at most `gpus` GPUs.

    `running` and `asleep` have the shape (states, types). `off_w` is the power of a GPU without a
    server, by default as these types were measured.
    """

    def __init__(self, types: Sequence[ReplicaType], gpus: int, off_w: float | None = None) -> None:
        self.types = tuple(types)
        self.gpus = gpus
        self.off_w = gpu_off_w(types) if off_w is None else off_w
        sizes = [(t.gpus, t.sleep is not None) for t in self.types]
        states = np.array(list(_states(sizes, gpus)), dtype=np.int64)
        self.running: Counts = states[:, 0::2]
        self.asleep: Counts = states[:, 1::2]
        each = np.array([t.gpus for t in self.types])
        self.off_gpus: Counts = gpus - (self.running + self.asleep) @ each

    @property
    def size(self) -> int:
        """How many states there are."""
        return len(self.running)

    @property
    def used_gpus(self) -> Counts:
        """GPUs with a server, asleep or not; shape (states,)."""
        return np.asarray(self.gpus - self.off_gpus, dtype=np.int64)

    @property
    def capacity(self) -> FloatArray:
        """Requests/s that each state takes under the SLO; shape (states,)."""
        each = np.array([t.capacity for t in self.types], dtype=np.float64)
        return np.asarray(self.running @ each, dtype=np.float64)

    def power_w(self, rates: FloatArray) -> FloatArray:
        """Return the power of each state at its rate, with the load spread evenly; (states,).

        Every running replica gets the same share of its capacity.
        """
        capacity = self.capacity
        share = np.divide(rates, capacity, out=np.zeros_like(capacity), where=capacity > 0.0)
        total = self.off_gpus * self.off_w
        for place, kind in enumerate(self.types):
            total = total + self.running[:, place] * kind.power_w(share * kind.capacity)
            total = total + self.asleep[:, place] * kind.asleep_w
        return np.asarray(total, dtype=np.float64)

    def relaxed(self, costs_j: FloatArray, most_gpus: float = inf) -> FloatArray:
        """Return for each state the least cost of being there after moves from any state.

        With all that starts there may be `most_gpus` in use in the interval before.
        """
        found = costs_j.copy()
        started = False
        for edges in self._edges:
            if not started and edges.move is not Move.START:
                found[self.used_gpus > most_gpus] = inf
                started = True
            moved = found[edges.sources] + edges.cost_j
            found[edges.targets] = np.minimum(found[edges.targets], moved)
        return found

    def costs_to(self, state: int, most_gpus: float = inf) -> FloatArray:
        """Return the cost of the moves from each state to one; infinite where there are none."""
        found = np.full(self.size, inf)
        found[state] = 0.0
        starting = False
        for edges in reversed(self._edges):
            if not starting and edges.move is Move.START:
                found[self.used_gpus > most_gpus] = inf
                starting = True
            moved = found[edges.targets] + edges.cost_j
            found[edges.sources] = np.minimum(found[edges.sources], moved)
        return found

    def place_of(self, running: Sequence[int], asleep: Sequence[int]) -> int:
        """Return the number of a state. Raises `KeyError`."""
        return self._places[tuple(np.ravel(np.column_stack([running, asleep])).tolist())]

    @cached_property
    def _places(self) -> dict[tuple[int, ...], int]:
        both = np.stack([self.running, self.asleep], axis=2).reshape(self.size, -1)
        return {tuple(row): number for number, row in enumerate(both.tolist())}

    @cached_property
    def _edges(self) -> tuple[_Edges, ...]:
        """Any number of moves is a sum of powers of two, each used once or not."""
        both = np.stack([self.running, self.asleep], axis=2).reshape(self.size, -1)
        found = []
        for move, (up, down) in _DELTAS.items():
            for place, kind in enumerate(self.types):
                if kind.sleep is None and move in (Move.WAKE, Move.SLEEP, Move.DROP):
                    continue
                cost_j, count = cost_of(kind, move), 1
                while count * kind.gpus <= self.gpus:
                    moved = both.copy()
                    moved[:, 2 * place] += up * count
                    moved[:, 2 * place + 1] += down * count
                    pairs = [
                        (source, target)
                        for source, row in enumerate(map(tuple, moved.tolist()))
                        if (target := self._places.get(row)) is not None
                    ]
                    if pairs:
                        sources, targets = np.array(pairs, dtype=np.int64).T
                        found.append(_Edges(move, sources, targets, cost_j * count))
                    count *= 2
        return tuple(found)


def gpu_off_w(types: Sequence[ReplicaType]) -> float:
    """Return the power of a GPU without a server: the highest that was measured, W."""
    return max(t.off_w / t.gpus for t in types)


def cost_of(kind: ReplicaType, move: Move) -> float:
    """Return what one move of a replica uses beyond the states before and after it, J."""
    costs_j = {
        Move.START: kind.start_extra_j,
        Move.WAKE: kind.wake_extra_j,
        Move.SLEEP: kind.sleep_extra_j + kind.drain_j,
        Move.STOP: kind.drain_j,
    }
    return costs_j.get(move, 0.0)


def states_in(types: Sequence[ReplicaType], gpus: int) -> int:
    """Return how many states a fleet has, without making them."""
    ways = [1] + [0] * gpus  # of using exactly so many GPUs
    for kind in types:
        for _ in range(1 if kind.sleep is None else 2):
            for used in range(kind.gpus, gpus + 1):
                ways[used] += ways[used - kind.gpus]
    return sum(ways)


def _states(sizes: Sequence[tuple[int, bool]], gpus: int) -> Iterator[tuple[int, ...]]:
    if not sizes:
        yield ()
        return
    (each, sleeps), rest = sizes[0], sizes[1:]
    for running in range(gpus // each + 1):
        left = gpus - running * each
        for asleep in range(left // each + 1 if sleeps else 1):
            for others in _states(rest, left - asleep * each):
                yield running, asleep, *others
