"""Evaluator protocol: a configuration in, a measurement out (launched, attached or virtual)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, Protocol

from tuner.configuration import STEPS, THINKING, Configuration, Value
from tuner.errors import OperatorNeededError, PreflightError, UsageError
from tuner.evaluation.traffic import Traffic
from tuner.load.heaviness.stretch_heaviness import StretchHeaviness
from tuner.load.workload import Workload
from tuner.measurement.quality.questions import Question
from tuner.measurement.racing.race import Race
from tuner.measurement.reduce import reduce_run
from tuner.measurement.steady_window import WindowPlan
from tuner.metrics import STRETCH_HEAVINESS
from tuner.pictures import Pictures
from tuner.records import (
    Failure,
    GenerationRequest,
    Load,
    Measurement,
    RawRun,
    Request,
    Source,
    Timing,
)
from tuner.slo import Slo, request_limits_ms
from tuner.store import Answers, Grades

IDLE_POWER = "idle_power_w"
IDLE_S = 60.0  # of a window without requests

EvaluationKind = Literal["live", "attached", "virtual"]


class BenchLostError(OperatorNeededError):
    """What evaluates is gone: its process was killed, its node lost, or it cannot be reached.

    Nothing is known of the configuration, which is to be evaluated again.
    """


@dataclass(frozen=True, slots=True)
class Testbed:
    """Testbed: the hardware and software that a study measures on; a resumed study needs the same.

    `kind`: the server is launched (`live`), runs already (`attached`), or is emulated on a virtual
    clock (`virtual`).
    """

    kind: EvaluationKind
    server_version: str
    gpu: str
    driver: str | None
    energy_source: Source
    latency_source: Source
    gpu_uuids: tuple[str, ...] = ()  # empty if no GPU is read


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of one evaluation and its duration.

    With `is_virtual` the duration is on the virtual clock and counts against a budget in hours.
    `answers` are the answers to the probe prompts, and `grades` say which questions of a quality
    file were answered right; None if the server was not asked. `pictures` are those of an image or
    video server beside the baseline's.
    """

    result: Measurement | Failure
    raw: RawRun | None
    warnings: tuple[str, ...]
    timing: Timing
    is_virtual: bool = False
    answers: Answers | None = None
    grades: Grades | None = None
    pictures: Pictures | None = None

    def spent(self, wall_s: float) -> Timing:
        """Return the time it takes from the budget, s; `wall_s` is its wall-clock time."""
        return self.timing if self.is_virtual else replace(self.timing, elapsed_s=wall_s)


@dataclass(frozen=True, slots=True)
class LoadRun:
    """One load to measure: what is sent, for how long, and how the records become a result.

    `requests` returns the same requests each time: a window that is discarded is repeated. Both
    functions can be pickled, because the load may run in another process.
    """

    requests: Callable[[], Iterator[Request]]
    load: Load
    window: WindowPlan
    reduce: Callable[[RawRun], Measurement | Failure]


class Evaluator(Protocol):
    """Evaluates one configuration at a time.

    `needs_guardian` says that a crash would leave servers running or GPUs changed.
    """

    needs_guardian: bool

    async def prepare(self) -> Testbed:
        """Check that evaluations are possible; return the testbed, the same one each time.

        Raises `UsageError` or `PreflightError`, which say what to do; it may be asked again then.
        """

    async def defaults(self) -> Mapping[str, Value]:
        """Return the value of each knob that is not set, as far as it is known.

        Raises `PreflightError` if the default configuration does not start.
        """

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        """Evaluate; a configuration that does not work is a `Failure`, not an exception.

        Raises `OperatorNeededError` if no further evaluation makes sense, and `BenchLostError` if
        it runs in another process, which is gone.
        """

    def is_warm_for(self, configuration: Configuration) -> bool:
        """Say whether the warm server can serve this configuration without a launch."""

    async def confirm(self, configuration: Configuration, repeat: int, traffic: int) -> Evaluation:
        """Evaluate on a server that was launched with exactly this configuration's flags.

        `repeat` is the number of the repeat; it differs each time. `traffic` is the number of a
        stretch of traffic that the search does not see; see `tuner.evaluation.traffic`.

        No limit is changed in the running server, and the server has no state of an earlier
        evaluation. A few in a row may share a launch. Failures and errors as for `evaluate`.
        """

    async def probe(self, configuration: Configuration, repeat: int, run: LoadRun) -> Evaluation:
        """Evaluate under another load than the study's, on the warm server if it can serve it.

        Failures and errors as for `evaluate`.
        """

    async def idle(
        self, configuration: Configuration, repeat: int, window_s: float = IDLE_S
    ) -> Evaluation:
        """Measure the power of the loaded server without requests, under the device knobs.

        The measurement has the metric `IDLE_POWER` alone.
        """

    async def switching(self, configuration: Configuration, repeat: int) -> Evaluation:
        """Measure a start of this configuration, and sleep and waking where the server has them.

        The measurement has the metrics of `tuner.analysis.deployment.switching`.
        """

    async def close(self) -> None:
        """Stop everything that was started."""


def load_of(configuration: Configuration, otherwise: Load) -> Load:
    """Return the load that the configuration's load knobs set, else `otherwise`.

    Raises `UsageError`.
    """
    load = configuration.offered
    if not load:
        return otherwise
    try:
        return Load(
            request_rate=float(load["request_rate"]) if "request_rate" in load else None,
            concurrency=int(load["concurrency"]) if "concurrency" in load else None,
        )
    except ValueError as error:
        raise UsageError(f"{', '.join(f'{k}={v}' for k, v in load.items())}: {error}") from None


def load_defaults(load: Load) -> dict[str, Value]:
    """Return the load as the values of the load knobs that are not set."""
    known = {"concurrency": load.concurrency, "request_rate": load.request_rate}
    return {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True, slots=True)
class MeasurementPlan:
    """Measurement plan: the traffic, load, SLOs and window of every measurement of a study.

    `fixed` holds the settings that all configurations share, including the baseline, `baseline`
    those of its own that others need not have (none if it is the server's default). `questions` are
    asked of what is confirmed, `pictures` are made by it and compared with the baseline's. With
    `ends_early`, the window of a configuration that clearly misses an SLO is cut short.
    `unseen_window` is the window on traffic that the search does not see, if it is another.
    `race` returns what a configuration runs against on the search's stretch, None for a window that
    ends by itself. `heaviness` is that of unseen stretches, None if it is not known in advance.
    """

    model: str
    traffic: Traffic
    load: Load
    slos: tuple[Slo, ...]
    window: WindowPlan
    fixed: Configuration
    ends_early: bool = False
    baseline: Configuration = field(default_factory=Configuration)
    questions: tuple[Question, ...] = ()
    pictures: tuple[GenerationRequest, ...] = ()
    unseen_window: WindowPlan | None = None
    race: Callable[[], Race | None] | None = None
    heaviness: StretchHeaviness | None = None

    @property
    def workload(self) -> Workload:
        """The workload that the traffic is of."""
        return self.traffic.workload

    @property
    def baseline_name(self) -> str:
        """What the baseline is called in messages."""
        return "your baseline" if self.baseline.knobs() else "its default configuration"

    def window_for(self, configuration: Configuration, unseen: int | None = None) -> WindowPlan:
        """Return a configuration's window on a stretch of traffic; see `Traffic.requests`.

        The baseline's is never cut short, nor any that the verdict on unseen traffic is made of.
        """
        if unseen is not None:
            return self.unseen_window or self.window
        if not self.ends_early or configuration == self.baseline:
            return self.window
        is_same_traffic = not configuration.load
        race = self.race() if self.race is not None and is_same_traffic else None
        return replace(self.window, slos=self.slos, race=race)

    def run_of(self, configuration: Configuration, unseen: int | None = None) -> LoadRun:
        """Return a configuration's load on a stretch of traffic; see `Traffic.requests`."""
        load = load_of(configuration, self.load)
        return LoadRun(
            requests=partial(
                self.traffic.requests, load, unseen, configuration.thinking, configuration.steps
            ),
            load=load,
            window=self.window_for(configuration, unseen),
            reduce=partial(self._reduce_beside, self._heaviness_of(configuration, unseen)),
        )

    def _heaviness_of(self, configuration: Configuration, unseen: int | None) -> float | None:
        """Return how heavy a stretch is; None if configurations are offered other loads."""
        if self.heaviness is None or unseen is None or configuration.load:
            return None
        return self.heaviness.of(unseen)

    def _reduce_beside(self, heaviness: float | None, raw: RawRun) -> Measurement | Failure:
        """Return the metrics of a run, and beside them how heavy its stretch is."""
        found = self.reduce(raw)
        if heaviness is None or isinstance(found, Failure):
            return found
        return replace(found, metrics={**found.metrics, STRETCH_HEAVINESS: heaviness})

    @property
    def load_defaults(self) -> dict[str, Value]:
        """The values of the load knobs that are not set."""
        spec = self.workload.spec
        steps = None if spec.generation is None else spec.generation.steps
        own = {THINKING: spec.default_level, STEPS: steps}
        return load_defaults(self.load) | {k: v for k, v in own.items() if v is not None}

    def full(self, configuration: Configuration) -> Configuration:
        """Return the full configuration: with the fixed settings, as a server is launched."""
        return configuration.with_fixed(self.fixed)

    def require_room(self, flags: Mapping[str, Value], context_flag: str) -> None:
        """Raise `PreflightError` if the longest request does not fit into the server's context."""
        longest, room = self.workload.max_request_tokens, flags.get(context_flag)
        if room is not None and longest > int(room):
            raise PreflightError(
                f"workload '{self.workload.name}' has requests of up to {longest} tokens, the "
                f"server takes {room}; raise {context_flag} under `fixed:` in the search space, or "
                "choose another workload"
            )

    def reduce(self, raw: RawRun) -> Measurement | Failure:
        """Return the metrics of a run under the SLOs."""
        return reduce_run(raw, request_limits_ms(self.slos))
