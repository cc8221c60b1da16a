"""One load on one configuration, on the emulator's own clock: seconds of work for hours of load."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.configuration import Configuration
from tuner.emulator.engine.engine import Engine, EngineStalledError
from tuner.emulator.engine.power import PowerModel
from tuner.emulator.engine.replicas import Replicas
from tuner.emulator.engine.sequences import Sequence
from tuner.emulator.engine.step import Batch, StepModel
from tuner.emulator.engine.step_log import FrontEnd
from tuner.emulator.launch_rules import request_refusal, resolve
from tuner.emulator.refusal import LaunchRefusedError
from tuner.emulator.step_model import step_model
from tuner.emulator.timelines import timelines
from tuner.errors import UsageError
from tuner.host.collector import collector_paused
from tuner.records import (
    FloatArray,
    InFlight,
    InformedWatch,
    Load,
    RawRun,
    Request,
    RequestRecord,
    RequestState,
    Source,
    SteadyWatch,
)

__all__ = ["LaunchRefusedError", "engine_for", "simulate", "steady_power_w"]

STEP_JITTER = 0.015
ENERGY_GAIN = 0.01  # standard deviation of a board's sensor gain between runs
_LONGEST_LOAD_S = 7 * 86_400.0
_MOST_FAILURES_IN_A_ROW = 1_000
_NO_TIMES: FloatArray = np.empty(0)


def engine_for(
    model: ModelShape,
    gpu: Gpu,
    configuration: Configuration,
    *,
    seed: int,
    noise: bool = True,
    keep_log: bool = True,
    acceptance: Mapping[str, float] | None = None,
) -> Engine:
    """Start an engine, with data parallelism one of its copies.

    Raises `LaunchRefusedError` where vLLM would not start, `UsageError` for what is not emulated.
    """
    if configuration.environment:
        names = ", ".join(configuration.environment)
        raise UsageError(f"environment variables are not emulated: {names}; leave them out")
    power = PowerModel.under(gpu, configuration.device)
    launch = resolve(model, gpu, configuration.flags)
    steps = step_model(model, gpu, configuration.flags, launch, acceptance)
    jitter = STEP_JITTER if noise else 0.0
    return Engine(launch, steps, power, jitter=jitter, seed=seed, keep_log=keep_log)


def replicas_for(
    model: ModelShape,
    gpu: Gpu,
    configuration: Configuration,
    *,
    seed: int,
    noise: bool = True,
    keep_log: bool = True,
    acceptance: Mapping[str, float] | None = None,
) -> Replicas:
    """Start every copy of the engine; raises as `engine_for`."""

    def copy_of(number: int) -> Engine:
        return engine_for(
            model,
            gpu,
            configuration,
            seed=seed + number,
            noise=noise,
            keep_log=keep_log,
            acceptance=acceptance,
        )

    first = copy_of(0)
    return Replicas([first, *map(copy_of, range(1, first.launch.data_parallel_size))])


def simulate(
    model: ModelShape,
    gpu: Gpu,
    configuration: Configuration,
    requests: Iterator[Request],
    load: Load,
    watch: SteadyWatch,
    *,
    seed: int,
    noise: bool = True,
    acceptance: Mapping[str, float] | None = None,
) -> RawRun:
    """Run a load until `watch` says that its window has ended; times start at 0.

    `acceptance` is the workload's, of drafted tokens by speculative method. Raises
    `LaunchRefusedError` where vLLM would not start, `UsageError` for what is not emulated.
    """
    front = replicas_for(model, gpu, configuration, seed=seed, noise=noise, acceptance=acceptance)
    costs = {"request_s": gpu.request_us * 1e-6, "token_s": gpu.token_us * 1e-6}
    run = _Run(front, requests, load, watch, **costs)
    with collector_paused():  # what a load makes lives as long as its run
        end_s = run.drive()
    opened_s = watch.window_start_s
    start_s = end_s if opened_s is None else min(opened_s, end_s)
    gain = 1.0 + ENERGY_GAIN * float(np.random.default_rng([seed, 1]).standard_normal())
    power, server = timelines(front.engines, start_s, end_s, gain if noise else 1.0)
    records = run.records(end_s)
    early = watch.ended_early if isinstance(watch, InformedWatch) else None
    told = (records, power, server, start_s, end_s, Source.EMULATED, early)
    return RawRun(*told, preemptions=float(sum(e.preemptions for e in front.engines)))


def steady_power_w(
    model: ModelShape,
    gpu: Gpu,
    *,
    generation_tok_s: float,
    prompt_tok_s: float,
    running: float,
    mean_context_tokens: float,
) -> float:
    """Power of one GPU at its default limit that does what a server reports of itself.

    The energy of the steps it takes to make those tokens, and idle power for the rest of the time.
    """
    power = PowerModel.under(gpu, {})
    if generation_tok_s <= 0 and prompt_tok_s <= 0:
        return power.idle_w
    steps = StepModel(model, gpu, async_scheduling=True)
    busy = energy_w = 0.0
    if generation_tok_s > 0:
        sequences = max(round(running), 1)
        context = round(sequences * mean_context_tokens)
        batch = Batch(
            decode_sequences=sequences,
            decode_context_tokens=context,
            sampled_sequences=sequences,
            scheduled_sequences=sequences,
        )
        cost = power.step(steps.parts(batch))
        share = generation_tok_s / sequences * cost.duration_s
        busy, energy_w = busy + share, energy_w + share * cost.power_w
    if prompt_tok_s > 0:
        tokens = 2048
        batch = Batch(prefill_tokens=tokens, prefill_pairs=tokens * mean_context_tokens / 2)
        cost = power.step(steps.parts(batch))
        share = prompt_tok_s / tokens * cost.duration_s
        busy, energy_w = busy + share, energy_w + share * cost.power_w
    if busy >= 1.0:
        return energy_w / busy
    return energy_w + (1.0 - busy) * power.idle_w


@dataclass(slots=True)
class _Flight:
    """A request that was sent, or that waits for its time."""

    request: Request
    scheduled_s: float
    sequence: Sequence
    arrival_s: float = math.inf  # in the engine's queue, once it was sent
    ended_s: float | None = None
    error: str | None = None
    engine: Engine | None = None  # once it has arrived
    front_end: FrontEnd | None = None
    first_s: float = math.nan  # of its first token, once it was asked for

    def first_token_s(self) -> float:
        """Return when its first token came, NaN before."""
        if math.isnan(self.first_s):
            sequence = self.sequence
            segments = sequence.segments
            first = segments[0][0] if segments else sequence.started_decode_step
            if first is not None:
                assert self.front_end is not None
                self.first_s = self.front_end.sent_s(first)
        return self.first_s

    def record(self, end_s: float, sent_s: FloatArray) -> RequestRecord:
        """Return what the client saw up to `end_s`; the times are a view where they can be.

        `sent_s` are the times at which the tokens of each step were sent.
        """
        times = [sent_s[first : first + count] for first, count in self.sequence.segments]
        token_times_s = times[0] if len(times) == 1 else np.concatenate([_NO_TIMES, *times])
        if token_times_s.size and token_times_s[-1] > end_s:
            token_times_s = token_times_s[: np.searchsorted(token_times_s, end_s, side="right")]
        ended_s = self.ended_s
        is_cut = ended_s is None or ended_s > end_s
        state = RequestState.CUT if is_cut else RequestState.DONE
        return RequestRecord(
            request_id=self.request.request_id,
            prompt_tokens=len(self.request.prompt_token_ids),
            output_tokens=self.request.output_tokens,
            scheduled_s=self.scheduled_s,
            sent_s=self.scheduled_s,
            token_times_s=token_times_s,
            ended_s=end_s if ended_s is None else min(ended_s, end_s),
            state=RequestState.FAILED if self.error is not None else state,
            error=self.error,
        )


class _Run:
    """Offers requests to an engine and tells the watch, in time order."""

    def __init__(
        self,
        front: Replicas,
        requests: Iterator[Request],
        load: Load,
        watch: SteadyWatch,
        *,
        request_s: float,
        token_s: float,
    ) -> None:
        self.flights: list[_Flight] = []
        self._engine = front
        self._requests = requests
        self._load = load
        self._watch = watch
        self._informed = watch if isinstance(watch, InformedWatch) else None
        self._in_engine: dict[Sequence, _Flight] = {}
        self._on_the_way: deque[_Flight] = deque()  # sent, not yet in the engine's queue
        self._scheduled: _Flight | None = None  # the next request of an open load
        self._failures_in_a_row = 0
        self._end_s = math.inf  # of the window, as far as the watch has decided it
        self._arrival_s = math.inf  # when the next request of those on the way arrives
        self._request_s, self._token_s = request_s, token_s
        self._told_s = 0.0
        self._front_ends = {}
        for engine in front.engines:
            assert engine.log is not None
            self._front_ends[engine] = FrontEnd(engine.log, token_s)

    def drive(self) -> float:
        """Run the load; returns when it ended."""
        if self._informed is not None:
            self._informed.set_in_flight_source(self._requests_in_flight)
        self._watch.started(0.0)
        self._ask_for_the_end()
        if self._load.concurrency is not None:
            for _ in range(self._load.concurrency):
                self._send(self._next_flight(0.0))
        else:
            self._scheduled = self._next_open()
        while not self._over():
            if self._engine.clock_s >= _LONGEST_LOAD_S:
                raise EngineStalledError(f"no end of the window in {_LONGEST_LOAD_S:g} s of load")
            self._next_event()
        self._engine.close()
        for sequence, flight in self._in_engine.items():
            assert flight.engine is not None
            sequence.close_segment(flight.engine.step_count)
        end_s = min(self._end_s, self._engine.clock_s)
        if self._informed is not None:
            self._informed.over(end_s)
        return end_s

    def records(self, end_s: float) -> tuple[RequestRecord, ...]:
        """Return what the client saw of each request up to `end_s`.

        A watch that sees late when its window began may end it at a time that has passed.
        """
        sent_s: dict[Engine | None, FloatArray] = {None: _NO_TIMES}
        for engine, front_end in self._front_ends.items():
            sent_s[engine] = front_end.times_s
        sent = [flight for flight in self.flights if flight.scheduled_s <= end_s]
        return tuple(flight.record(end_s, sent_s[flight.engine]) for flight in sent)

    def _over(self) -> bool:
        hopeless = self._failures_in_a_row >= _MOST_FAILURES_IN_A_ROW
        return hopeless or self._engine.clock_s >= self._end_s

    def _next_event(self) -> None:
        """Advance to the next arrival, end of a request, or end of the window."""
        engine = self._engine
        until_s = min(self._next_send_s(), self._arrival_s, self._end_s)
        finished = engine.advance(min(until_s, _LONGEST_LOAD_S))
        now_s = engine.clock_s
        while self._failures_in_a_row < _MOST_FAILURES_IN_A_ROW:
            send_s, arrival_s = self._next_send_s(), self._arrival_s
            if min(send_s, arrival_s) > min(now_s, self._end_s):
                break
            if send_s <= arrival_s:
                self._send_open()
            else:
                self._arrive(self._on_the_way.popleft())
        for sequence in finished:
            if now_s <= self._end_s:
                flight = self._in_engine.pop(sequence)
                first, count = sequence.segments[-1]
                assert flight.front_end is not None
                ended_s = flight.front_end.sent_s(first + count - 1)
                if ended_s <= self._end_s:
                    self._inform(flight, ended_s)
                    self._end(flight, ended_s)
                else:  # the client does not see the end of it any more
                    flight.ended_s = ended_s

    def _arrive(self, flight: _Flight) -> None:
        self._look_for_the_next_arrival()
        prompt, output = flight.sequence.prompt_tokens, flight.sequence.output_tokens
        refusal = request_refusal(prompt, output, self._engine.launch.max_model_len)
        if refusal is None:
            self._in_engine[flight.sequence] = flight
            flight.engine = self._engine.submit(flight.sequence)
            flight.front_end = self._front_ends[flight.engine]
            return
        flight.error = f"HTTP 400: {refusal}"
        self._end(flight, flight.arrival_s)

    def _end(self, flight: _Flight, ended_s: float) -> None:
        """Note when the client has the whole answer, a little after the engine made it."""
        flight.ended_s = ended_s
        self._failures_in_a_row = 0 if flight.error is None else self._failures_in_a_row + 1
        self._watch.finished(self._in_order(ended_s))
        self._ask_for_the_end()
        if self._load.concurrency is not None and ended_s < self._end_s:
            self._send(self._next_flight(ended_s))

    def _inform(self, flight: _Flight, ended_s: float) -> None:
        if self._informed is None:
            return
        engine = self._engine
        self._informed.sampled(engine.clock_s, engine.energy_j, engine.generation_tokens)
        tokens = flight.sequence.output_tokens
        self._informed.answered(ended_s, flight.scheduled_s, flight.first_token_s(), tokens)

    def _in_order(self, time_s: float) -> float:
        """Return a time, or the latest one that the watch was told: answers are told ahead."""
        self._told_s = max(self._told_s, time_s)
        return self._told_s

    def _requests_in_flight(self) -> InFlight:
        flights = [*self._in_engine.values(), *self._on_the_way]
        return InFlight(
            np.array([f.scheduled_s for f in flights], dtype=np.float64),
            np.array([f.first_token_s() for f in flights], dtype=np.float64),
            np.array([f.sequence.output_tokens for f in flights], dtype=np.float64),
        )

    def _send(self, flight: _Flight) -> None:
        self.flights.append(flight)
        # the event loop that takes it is busy with the tokens of a step, or half-way through them
        busy_s = self._engine.running / len(self._front_ends) * self._token_s / 2
        arrival_s = flight.scheduled_s + self._request_s + busy_s
        flight.arrival_s = max(arrival_s, self._on_the_way[-1].arrival_s if self._on_the_way else 0)
        self._on_the_way.append(flight)
        self._look_for_the_next_arrival()
        self._watch.sent(self._in_order(flight.scheduled_s))
        self._ask_for_the_end()

    def _send_open(self) -> None:
        assert self._scheduled is not None
        self._send(self._scheduled)
        self._scheduled = self._next_open()

    def _next_flight(self, scheduled_s: float) -> _Flight:
        return self._flight(next(self._requests), scheduled_s)

    def _next_open(self) -> _Flight:
        assert self._load.request_rate is not None
        request = next(self._requests)
        return self._flight(request, request.arrival_s / self._load.request_rate)

    @staticmethod
    def _flight(request: Request, scheduled_s: float) -> _Flight:
        number, prompt, most = request.request_id, request.prompt_token_ids, request.output_tokens
        return _Flight(request, scheduled_s, Sequence(number, len(prompt), most, prompt))

    def _next_send_s(self) -> float:
        return math.inf if self._scheduled is None else self._scheduled.scheduled_s

    def _look_for_the_next_arrival(self) -> None:
        self._arrival_s = self._on_the_way[0].arrival_s if self._on_the_way else math.inf

    def _ask_for_the_end(self) -> None:
        """Take note of the end of the window; it is decided when the watch is told something."""
        end_s = self._watch.window_end_s
        self._end_s = math.inf if end_s is None else end_s
