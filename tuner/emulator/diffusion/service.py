"""One load of images or videos on the emulator's own clock."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tuner.catalog.diffusion.constants import diffusion_constants
from tuner.catalog.diffusion.model import DiffusionModel
from tuner.catalog.gpu import Gpu
from tuner.configuration import Configuration
from tuner.emulator.diffusion.cost import DiffusionCost, Picture
from tuner.emulator.diffusion.launch import GIB, KEPT_GIB, resolve_diffusion
from tuner.emulator.diffusion.memory import batch_bytes
from tuner.emulator.engine.power import PowerModel, StepCost
from tuner.emulator.refusal import LaunchRefusedError
from tuner.errors import UsageError
from tuner.records import (
    EarlyEnd,
    GenerationRequest,
    InFlight,
    InformedWatch,
    Load,
    PowerTimeline,
    RawRun,
    Request,
    RequestRecord,
    RequestState,
    ServerTimeline,
    Source,
    SteadyWatch,
)

_JITTER = 0.01  # standard deviation of a batch's time
_ENERGY_GAIN = 0.01  # of a board's sensor between runs, as for text
_RESEND_S = 0.003  # clients that got an answer at once send again one after another
_STABLE_S = 0.05  # vLLM-Omni waits no longer for a batch once nothing came for so long
_SAMPLE_S = 0.1
_MOST_SAMPLES = 20_000
_LONGEST_LOAD_S = 30 * 86_400.0


def simulate_generations(
    model: DiffusionModel,
    gpu: Gpu,
    configuration: Configuration,
    requests: Iterator[Request],
    load: Load,
    watch: SteadyWatch,
    *,
    seed: int,
    noise: bool = True,
) -> RawRun:
    """Run a load until `watch` says that its window has ended; times start at 0.

    Requests that are alike are made in one batch, which ends as a whole. Raises
    `LaunchRefusedError` where the server would not start or a batch does not fit into memory,
    `UsageError` for what is not emulated.
    """
    if configuration.environment:
        names = ", ".join(configuration.environment)
        raise UsageError(f"environment variables are not emulated: {names}; leave them out")
    launch = resolve_diffusion(model, gpu, configuration.flags)
    power = PowerModel.under(gpu, configuration.device)
    cost = DiffusionCost(model, gpu, diffusion_constants(gpu.name), launch)
    rng = np.random.default_rng(seed)
    run = _Service(cost, power, requests, load, watch, rng if noise else None)
    end_s = run.drive()
    opened_s = watch.window_start_s
    start_s = end_s if opened_s is None else min(opened_s, end_s)
    gain = 1.0 + (_ENERGY_GAIN * float(rng.standard_normal()) if noise else 0.0)
    early: EarlyEnd | None = watch.ended_early if isinstance(watch, InformedWatch) else None
    return RawRun(
        requests=run.records(end_s),
        power=run.history.power(start_s, end_s, gain),
        server=run.history.server(end_s),
        window_start_s=start_s,
        window_end_s=end_s,
        latency_source=Source.EMULATED,
        ended_early=early,
        output=model.output,
    )


def idle_w(model: DiffusionModel, gpu: Gpu, configuration: Configuration) -> float:
    """Return the power of a server with nothing to do, all its GPUs."""
    launch = resolve_diffusion(model, gpu, configuration.flags)
    return PowerModel.under(gpu, configuration.device).idle_w * launch.gpus


@dataclass(slots=True)
class _History:
    """What the server did, from the start: the ends of stretches of the same power."""

    ends_s: list[float] = field(default_factory=lambda: [0.0])
    energies_j: list[float] = field(default_factory=lambda: [0.0])
    clocks_mhz: list[float] = field(default_factory=list)
    running: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)

    def add(
        self, end_s: float, power_w: float, clock_mhz: float, running: int, waiting: int
    ) -> None:
        """Append a stretch up to `end_s`."""
        self.energies_j.append(self.energies_j[-1] + power_w * (end_s - self.ends_s[-1]))
        self.ends_s.append(end_s)
        self.clocks_mhz.append(clock_mhz)
        self.running.append(float(running))
        self.waiting.append(float(waiting))

    def power(self, start_s: float, end_s: float, gain: float) -> PowerTimeline:
        """Sample it; power is the mean since the sample before."""
        step_s = max(_SAMPLE_S, end_s / _MOST_SAMPLES)
        times_s = np.union1d(np.arange(0.0, end_s, step_s), [start_s, end_s, *self.ends_s])
        times_s = times_s[times_s <= end_s]
        energy_j = gain * np.interp(times_s, self.ends_s, self.energies_j)
        power_w = np.zeros_like(times_s)
        power_w[1:] = np.diff(energy_j) / np.diff(times_s)
        power_w[0] = power_w[1] if power_w.size > 1 else 0.0
        clocks = np.array(self.clocks_mhz)[self._stretch(times_s)]
        return PowerTimeline(times_s, power_w, energy_j, Source.EMULATED, clocks)

    def server(self, end_s: float) -> ServerTimeline:
        """Return how many requests ran and waited at the end of each stretch."""
        times_s = np.array([t for t in self.ends_s if t <= end_s])
        stretch = self._stretch(times_s)
        return ServerTimeline(
            times_s, np.array(self.running)[stretch], np.array(self.waiting)[stretch]
        )

    def _stretch(self, times_s: np.ndarray) -> np.ndarray:
        after = np.searchsorted(self.ends_s[1:], times_s, side="left")
        return np.minimum(after, len(self.clocks_mhz) - 1)


@dataclass(slots=True, eq=False)
class _Flight:
    request: GenerationRequest
    scheduled_s: float
    ended_s: float = math.inf

    def record(self, end_s: float) -> RequestRecord:
        """Return what the client saw up to `end_s`."""
        is_done = self.ended_s <= end_s
        return RequestRecord(
            request_id=self.request.request_id,
            prompt_tokens=self.request.prompt_token_ids.size,
            output_tokens=1,
            scheduled_s=self.scheduled_s,
            sent_s=self.scheduled_s,
            token_times_s=np.array([self.ended_s] if is_done else []),
            ended_s=min(self.ended_s, end_s),
            state=RequestState.DONE if is_done else RequestState.CUT,
            units=self.request.units,
        )


class _Service:
    """Clients, a queue, and a server that makes one batch after another."""

    def __init__(
        self,
        cost: DiffusionCost,
        power: PowerModel,
        requests: Iterator[Request],
        load: Load,
        watch: SteadyWatch,
        rng: np.random.Generator | None,
    ) -> None:
        self.history = _History()
        self._cost, self._power, self._rng = cost, power, rng
        self._requests, self._load, self._watch = requests, load, watch
        self._informed = watch if isinstance(watch, InformedWatch) else None
        self._flights: list[_Flight] = []
        self._coming: deque[_Flight] = deque()  # in the order of their times
        self._queue: list[_Flight] = []
        self._batch: list[_Flight] = []
        self._costs: dict[tuple[Picture, int], StepCost] = {}
        self._made = 0.0
        self._clock_s = 0.0

    def drive(self) -> float:
        """Run the load; returns when it ended."""
        if self._informed is not None:
            self._informed.set_in_flight_source(self._in_flight)
        self._watch.started(0.0)
        if self._load.concurrency is None:
            self._coming.append(self._next_open())
        for number in range(self._load.concurrency or 0):
            self._coming.append(self._next(number * _RESEND_S))
        while self._clock_s < self._end_s() and self._clock_s < _LONGEST_LOAD_S:
            self._fill_queue()
            picture = Picture.of(self._queue[0].request)
            alike = [f for f in self._queue if Picture.of(f.request) == picture]
            self._batch = alike[: self._cost.launch.max_num_seqs]
            self._queue = [f for f in self._queue if f not in self._batch]
            self._make(picture)
        end_s = min(self._end_s(), self._clock_s)
        if self._informed is not None:
            self._informed.over(end_s)
        return end_s

    def records(self, end_s: float) -> tuple[RequestRecord, ...]:
        """Return what the client saw of each request up to `end_s`."""
        return tuple(f.record(end_s) for f in self._flights if f.scheduled_s <= end_s)

    def _fill_queue(self) -> None:
        """Wait for a request, and then for others to make with it, at most as the flag says."""
        self._take_arrivals(self._clock_s)
        if not self._queue:
            self._idle_until(self._coming[0].scheduled_s)
        wait_s = self._cost.launch.request_batch_max_wait_ms / 1e3
        until_s, stable_s = self._clock_s + wait_s, min(_STABLE_S, wait_s / 5.0)
        while len(self._queue) < self._cost.launch.max_num_seqs:
            comes_s = self._coming[0].scheduled_s if self._coming else math.inf
            self._idle_until(min(comes_s, until_s, self._clock_s + stable_s))
            if self._clock_s < comes_s:
                return

    def _idle_until(self, until_s: float) -> None:
        if until_s > self._clock_s:
            watts = self._power.idle_w * self._cost.launch.gpus
            clock_mhz = float(self._power.highest_clock_mhz)
            self.history.add(until_s, watts, clock_mhz, 0, len(self._queue))
            self._clock_s = until_s
        self._take_arrivals(until_s)

    def _take_arrivals(self, now_s: float) -> None:
        while self._coming and self._coming[0].scheduled_s <= now_s:
            flight = self._coming.popleft()
            self._flights.append(flight)
            self._queue.append(flight)
            if self._load.concurrency is None:
                self._coming.append(self._next_open())
            self._watch.sent(flight.scheduled_s)

    def _make(self, picture: Picture) -> None:
        """Make the batch; requests that come meanwhile wait."""
        cost = self._cost_of(picture, len(self._batch))
        took_s = cost.duration_s
        if self._rng is not None:
            took_s *= math.exp(_JITTER * float(self._rng.standard_normal()))
        end_s = self._clock_s + took_s
        watts = cost.power_w * self._cost.launch.gpus
        while self._coming and self._coming[0].scheduled_s <= min(end_s, self._end_s()):
            self._take_arrivals(self._coming[0].scheduled_s)
        self.history.add(end_s, watts, cost.clock_mhz, len(self._batch), len(self._queue))
        self._clock_s = end_s
        ended, self._batch = self._batch, []
        for flight in ended:
            flight.ended_s = end_s
            self._made += flight.request.units
        if end_s > self._end_s():
            return
        for number, flight in enumerate(ended):
            if self._informed is not None:
                self._informed.sampled(end_s, self.history.energies_j[-1], self._made)
                self._informed.answered(end_s, flight.scheduled_s, end_s, 1)
            self._watch.finished(end_s)
            if self._load.concurrency is not None:
                self._coming.append(self._next(end_s + (number + 1) * _RESEND_S))

    def _cost_of(self, picture: Picture, size: int) -> StepCost:
        known = self._costs.get((picture, size))
        if known is None:
            model, launch = self._cost.model, self._cost.launch
            needed = batch_bytes(model, launch, picture, size) / GIB
            room = self._cost.gpu.memory_gib - KEPT_GIB
            if needed > room:
                raise LaunchRefusedError(
                    f"CUDA out of memory: a batch of {size} of {picture.width}x{picture.height} "
                    f"needs {needed:.0f} GiB, {room:.0f} GiB of each GPU are free"
                )
            known = self._costs[picture, size] = self._cost.batch(self._power, picture, size)
        return known

    def _next(self, scheduled_s: float) -> _Flight:
        return _Flight(_generation(next(self._requests)), scheduled_s)

    def _next_open(self) -> _Flight:
        assert self._load.request_rate is not None
        request = _generation(next(self._requests))
        return _Flight(request, request.arrival_s / self._load.request_rate)

    def _in_flight(self) -> InFlight:
        under_way = [*self._queue, *self._batch]
        return InFlight.of((f.scheduled_s, math.nan, 1) for f in under_way)

    def _end_s(self) -> float:
        end_s = self._watch.window_end_s
        return math.inf if end_s is None else end_s


def _generation(request: Request) -> GenerationRequest:
    if not isinstance(request, GenerationRequest):
        raise UsageError(
            "the model makes images or videos, and the workload asks for text: take --workload "
            "image or video"
        )
    return request
