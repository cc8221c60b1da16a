"""Fleet run: requests through emulated replicas that come and go, on one virtual clock.

A replica that is stopped gets no more requests and ends those that it has. One that is started or
woken is ready when its stretch begins: the plan began it in time. The router knows what it sent at
once, and which answers have ended a tenth of a second later at most; in between the replicas need
not keep pace, which is what makes it quick.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.configuration import Configuration
from tuner.emulator.engine.sequences import Sequence as Answer
from tuner.emulator.engine.step_log import FrontEnd
from tuner.emulator.fleet.routing import Replica, Router
from tuner.emulator.launch_rules import request_refusal
from tuner.emulator.virtual import engine_for
from tuner.host.collector import collector_paused
from tuner.records import Request

_DRAIN_S = 600.0  # after the last stretch; what is not answered by then never is
_DRAIN_STEP_S = 5.0
_TICK_S = 0.1  # how often the router learns of answers that have ended

Arrival: TypeAlias = tuple[float, int]  # when in the day, s; the place of its task
Forms: TypeAlias = Sequence[Request]  # of one request, one for each `ReplicaKind.form`


@dataclass(frozen=True, slots=True)
class ReplicaKind:
    """A configuration of the fleet: how many replicas it has at most, and what each takes.

    `form` is the place of the form that a request takes here: answers of another level of thinking
    have another length.
    """

    configuration: Configuration
    most: int
    capacity: float
    limit: int
    form: int = 0

    @property
    def copies(self) -> int:
        """The engines of one replica: with data parallelism several, which share its capacity."""
        return int(self.configuration.flags.get("data_parallel_size", 1))


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the day that is simulated: seconds of it, and the replicas of each kind that run.

    Energy counts from `settle_s` on: before, what the stretch before left is still answered.
    """

    interval: int
    start_s: float
    length_s: float
    settle_s: float
    running: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one request, by its task and the stretch that it came in; times in ms.

    `ttft_ms` is None if it was never answered. `gaps` is how many there are between its tokens, and
    `late_gaps` how many of them are longer than each of the task's bounds.
    """

    stretch: int
    ttft_ms: float | None
    tpot_ms: float | None = None
    e2el_ms: float | None = None
    task: int = 0
    gaps: int = 0
    late_gaps: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class FleetResult:
    """Mean power of the running replicas in each stretch, W, and every request."""

    power_w: tuple[float, ...]
    answered: tuple[Answered, ...]


@dataclass(slots=True)
class _Flight:
    stretch: int
    task: int
    scheduled_s: float
    place: int


class FleetRun:
    """One simulation; `run` is called once."""

    def __init__(
        self,
        model: ModelShape,
        gpu: Gpu,
        kinds: Sequence[ReplicaKind],
        router: Router,
        seed: int,
        *,
        gap_bounds_ms: Sequence[Sequence[float]] = (),
        acceptance: Mapping[str, float] | None = None,
    ) -> None:
        """Start every engine that the fleet ever needs.

        `gap_bounds_ms` are the bounds of each task on the time between two tokens, `acceptance` is
        that of drafted tokens by speculative method.
        """
        self._gap_bounds_ms = gap_bounds_ms
        self._kinds = kinds
        self._router = router
        made = [
            (
                place,
                engine_for(
                    model,
                    gpu,
                    kind.configuration,
                    seed=seed * 1000 + place * 100 + n,
                    acceptance=acceptance,
                ),
            )
            for place, kind in enumerate(kinds)
            for n in range(kind.most * kind.copies)
        ]
        self._kind_of = [place for place, _ in made]
        self._engines = [engine for _, engine in made]
        self._front_ends = {e: FrontEnd(e.log, gpu.token_us * 1e-6) for e in self._engines if e.log}
        self._under_way = [0] * len(made)
        self._known_s = 0.0  # up to when answers are known to have ended
        self._request_s = gpu.request_us * 1e-6
        self._active: list[int] = []
        self._flights: dict[Answer, _Flight] = {}
        self._answered: list[Answered] = []

    def run(
        self,
        stretches: Sequence[Stretch],
        arrivals: Iterable[Iterator[Arrival]],
        requests: Sequence[Iterator[Forms]],
    ) -> FleetResult:
        """Simulate the stretches one after another.

        `arrivals` has those of each stretch, `requests` those of each task. What a stretch leaves
        unanswered goes on in the next one.
        """
        powers_w, now_s = [], 0.0
        with collector_paused():
            for number, (stretch, coming) in enumerate(zip(stretches, arrivals, strict=True)):
                self._begin(stretch)
                powers_w.append(self._stretch(number, stretch, coming, requests, now_s))
                now_s += stretch.length_s
            self._drain(now_s)
        return FleetResult(tuple(powers_w), tuple(self._answered))

    def _begin(self, stretch: Stretch) -> None:
        both = zip(stretch.running, self._kinds, strict=True)
        counts = {place: count * kind.copies for place, (count, kind) in enumerate(both)}
        self._active = []
        for place, kind in enumerate(self._kind_of):
            if counts[kind]:
                counts[kind] -= 1
                self._active.append(place)

    def _stretch(
        self,
        number: int,
        stretch: Stretch,
        coming: Iterator[Arrival],
        requests: Sequence[Iterator[Forms]],
        now_s: float,
    ) -> float:
        """Simulate one stretch; return the mean power of what runs, W."""
        offset_s = now_s - stretch.start_s
        settled_s, end_s = now_s + stretch.settle_s, now_s + stretch.length_s
        before_j: float | None = None
        for time_s, task in coming:
            at_s = time_s + offset_s
            if before_j is None and at_s >= settled_s:
                self._advance(settled_s)
                before_j = self._energy_j()
            if at_s >= self._known_s + _TICK_S:
                self._advance(at_s)
            self._send(number, task, at_s, next(requests[task]))
        if before_j is None:
            self._advance(settled_s)
            before_j = self._energy_j()
        self._advance(end_s)
        return (self._energy_j() - before_j) / (stretch.length_s - stretch.settle_s)

    def _send(self, number: int, task: int, at_s: float, forms: Forms) -> None:
        if not self._active:
            self._answered.append(Answered(number, None, task=task))
            return
        place = self._router(self._replicas(), forms[0])
        engine = self._engines[place]
        request = forms[self._kinds[self._kind_of[place]].form]
        prompt, output = len(request.prompt_token_ids), request.output_tokens
        if request_refusal(prompt, output, engine.launch.max_model_len) is not None:
            self._answered.append(Answered(number, None, task=task))
            return
        self._advance_one(place, at_s)
        answer = Answer(request.request_id, prompt, output, request.prompt_token_ids)
        engine.submit(answer)
        self._under_way[place] += 1
        self._flights[answer] = _Flight(number, task, at_s - self._request_s, place)

    def _replicas(self) -> list[Replica]:
        found = []
        for place in self._active:
            kind = self._kinds[self._kind_of[place]]
            copies = kind.copies
            load = self._under_way[place]
            found.append(Replica(place, load, kind.capacity / copies, kind.limit // copies))
        return found

    def _advance(self, until_s: float) -> None:
        """Let every engine come up to a time."""
        for place in range(len(self._engines)):
            self._advance_one(place, until_s)
        self._known_s = until_s

    def _advance_one(self, place: int, until_s: float) -> None:
        engine = self._engines[place]
        while engine.load and engine.clock_s < until_s:
            for answer in engine.advance(until_s):
                self._end(answer)
        if engine.clock_s < until_s:
            engine.idle(until_s)

    def _end(self, answer: Answer) -> None:
        flight = self._flights.pop(answer)
        self._under_way[flight.place] -= 1
        front_end = self._front_ends[self._engines[flight.place]]
        sent_s = front_end.sent_s
        first, _ = answer.segments[0]
        last, count = answer.segments[-1]
        first_s, last_s = sent_s(first), sent_s(last + count - 1)
        more = answer.output_tokens - 1
        self._answered.append(
            Answered(
                flight.stretch,
                (first_s - flight.scheduled_s) * 1000.0,
                (last_s - first_s) / more * 1000.0 if more else None,
                (last_s - flight.scheduled_s) * 1000.0,
                flight.task,
                more,
                self._late_gaps(flight.task, answer, front_end),
            )
        )

    def _late_gaps(self, task: int, answer: Answer, front_end: FrontEnd) -> tuple[int, ...]:
        """Return how many gaps between tokens are longer than each of a task's bounds."""
        bounds_ms = self._gap_bounds_ms[task] if self._gap_bounds_ms else ()
        if not bounds_ms:
            return ()
        sent_s = [front_end.sent_s(f + n) for f, count in answer.segments for n in range(count)]
        gaps_ms = np.diff(sent_s) * 1000.0
        return tuple(int((gaps_ms > bound_ms).sum()) for bound_ms in bounds_ms)

    def _energy_j(self) -> float:
        """Return the energy of the running replicas; those that drain are costs of a stop."""
        return sum(self._engines[place].energy_j for place in self._active)

    def _drain(self, now_s: float) -> None:
        until_s = now_s
        while self._flights and until_s < now_s + _DRAIN_S:
            until_s += _DRAIN_STEP_S
            self._advance(until_s)
        left = self._flights.values()
        self._answered += [Answered(one.stretch, None, task=one.task) for one in left]
