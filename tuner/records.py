"""Raw records of a measurement, from a served model and from the emulator alike.

All times are seconds on one monotonic clock per run. Unknown is `None`, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tuner.metrics import Output

FloatArray: TypeAlias = NDArray[np.float64]
TokenArray: TypeAlias = NDArray[np.int32]


class Source(StrEnum):
    """Where a number comes from; shown wherever the number is shown."""

    MEASURED = "measured"
    EMULATED = "emulated"


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request of a workload.

    `arrival_s` is the offset from the start of the load at a mean rate of one request per second;
    an open load of R req/s divides it by R, a closed load ignores it. With `stops` the answer ends
    where the model ends it, after at most `output_tokens`; else it has exactly so many.
    `chat_fields` are sent with messages beside them. With `counts_whole` energy is counted by
    answers rather than by tokens.
    """

    request_id: int
    arrival_s: float
    prompt_token_ids: TokenArray
    output_tokens: int
    stops: bool = field(default=False, kw_only=True)
    chat_fields: Mapping[str, Any] | None = field(default=None, kw_only=True)
    counts_whole: bool = field(default=False, kw_only=True)

    @property
    def output(self) -> Output:
        """What it asks for."""
        return Output.ANSWER if self.counts_whole else Output.TEXT


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: str
    content: str


Prompt: TypeAlias = str | tuple[Message, ...]


@dataclass(frozen=True, slots=True, eq=False)
class TextRequest(Request):
    """A request that is sent as `prompt` (text or messages), which the server tokenizes.

    Its `prompt_token_ids` are never sent. They replace the tokens where there is no tokenizer:
    as many equal ids as the text has tokens by estimate.
    """

    prompt: Prompt


@dataclass(frozen=True, slots=True, eq=False)
class GenerationRequest(Request):
    """A request for one image or video, which arrives whole: its `output_tokens` are 1.

    `height` and `width` are in pixels; an image has no `fps` and one frame. `steps` are those of
    the sampler, `guidance` is None where the model's own is taken, and `seed` that of the noise.
    """

    prompt: str
    height: int
    width: int
    steps: int
    seed: int
    frames: int = 1
    fps: float | None = None
    guidance: float | None = None

    @property
    def output(self) -> Output:
        """What it asks for."""
        return Output.IMAGE if self.fps is None else Output.VIDEO

    @property
    def units(self) -> float:
        """How much it asks for: one image, or the seconds of the video."""
        return 1.0 if self.fps is None else self.frames / self.fps


@dataclass(frozen=True, slots=True)
class Load:
    """How requests are offered: closed loop (`concurrency`) or open loop (`request_rate`, 1/s)."""

    concurrency: int | None = None
    request_rate: float | None = None

    def __post_init__(self) -> None:
        if (self.concurrency is None) == (self.request_rate is None):
            raise ValueError("a load is either closed (concurrency) or open (request_rate)")
        if not 0 < (self.request_rate or self.concurrency or 0) < math.inf:
            raise ValueError("a load must be greater than 0")


class RequestState(StrEnum):
    """How a request ended."""

    DONE = "done"  # a finish reason, the end marker, and the tokens asked for
    FAILED = "failed"  # anything else that the server did; `error` says what
    CUT = "cut"  # in flight when the load was ended on purpose


@dataclass(frozen=True, slots=True, eq=False)
class RequestRecord:
    """The client's record of one request.

    `token_times_s` has one entry per output token; of an image or a video the one at which it had
    arrived. `units` is how much was asked for where that is not tokens: images, or seconds of
    video.
    """

    request_id: int
    prompt_tokens: int
    output_tokens: int  # asked for; of a whole answer that stops by itself what it has
    scheduled_s: float
    sent_s: float
    token_times_s: FloatArray
    ended_s: float
    state: RequestState
    error: str | None = None
    units: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PowerTimeline:
    """Samples of the server's GPUs, summed. `energy_j` is the running energy counter.

    `sm_clock_mhz` is the mean of the GPUs' clocks, NaN in a sample without it; None if no sample
    has it.
    """

    times_s: FloatArray
    power_w: FloatArray
    energy_j: FloatArray
    source: Source
    sm_clock_mhz: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DraftCounts:
    """Running counts of speculative decoding, at the times of a `ServerTimeline`.

    `drafts` counts what was drafted for a sequence in a step, `drafted` its tokens, `accepted`
    those that the model kept; `accepted_at` has a column of those for each position of a draft.
    """

    drafts: FloatArray
    drafted: FloatArray
    accepted: FloatArray
    accepted_at: tuple[FloatArray, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ServerTimeline:
    """The server's own counts of running and waiting requests, and of drafts if it speculates."""

    times_s: FloatArray
    running: FloatArray
    waiting: FloatArray
    drafts: DraftCounts | None = None


@dataclass(frozen=True, slots=True)
class LoadSnapshot:
    """The present progress of a load, for display only; None is not known yet.

    Latencies are the medians of the latest answers.
    """

    power_w: float | None
    sm_clock_mhz: float | None
    ttft_ms: float | None
    tpot_ms: float | None
    power_source: Source
    latency_source: Source


@dataclass(frozen=True, slots=True)
class EarlyEnd:
    """Why a load was ended before its window was over.

    `missed` is the SLO, as users write it, that is clearly missed; None if the load outgrew the
    server.
    """

    reason: str
    missed: str | None


@dataclass(frozen=True, slots=True, eq=False)
class RawRun:
    """Everything recorded while one load ran against one server.

    `energy_j` of `power` and the tokens in `requests` cover the whole load; `tuner.measurement`
    decides which part is the steady window. `invalid` says why no metric of it is valid, for a
    reason outside the configuration, and what to do. `preemptions` is how often the server took a
    running request's memory during the load; None if it does not say. `output` is what was asked
    for.
    """

    requests: tuple[RequestRecord, ...]
    power: PowerTimeline
    server: ServerTimeline
    window_start_s: float
    window_end_s: float
    latency_source: Source
    ended_early: EarlyEnd | None = None
    invalid: str | None = None
    preemptions: float | None = None
    output: Output = Output.TEXT


@dataclass(frozen=True, slots=True, eq=False)
class InFlight:
    """The requests that have not ended, in columns; `first_token_s` is NaN before the first.

    `output_tokens` is how many were requested.
    """

    scheduled_s: FloatArray
    first_token_s: FloatArray
    output_tokens: FloatArray

    @classmethod
    def of(cls, rows: Iterable[tuple[float, float, int]]) -> InFlight:
        """Build the columns from rows."""
        columns = np.array(list(rows), dtype=np.float64).reshape(-1, 3).T
        return cls(columns[0], columns[1], columns[2])


class SteadyWatch(Protocol):
    """Decides, while a load runs, when the steady window begins and ends.

    The driver of the load (served or virtual) reports events in time order and ends the load at
    `window_end_s`. Implemented in `tuner.measurement.steady_window`.
    """

    def started(self, now_s: float) -> None:
        """The load begins."""

    def sent(self, now_s: float) -> None:
        """A request was sent."""

    def finished(self, now_s: float) -> None:
        """A request ended, in any state."""

    @property
    def window_start_s(self) -> float | None:
        """When the steady window began, or None while warming up."""

    @property
    def window_end_s(self) -> float | None:
        """When the load must end, or None while that is unknown."""


@runtime_checkable
class InformedWatch(SteadyWatch, Protocol):
    """A watch that also uses energy, tokens and latencies, if the driver can report them."""

    def sampled(self, now_s: float, energy_j: float, tokens: float) -> None:
        """Report the energy, J, and the output tokens, both since some fixed time."""

    def answered(self, now_s: float, scheduled_s: float, first_token_s: float, tokens: int) -> None:
        """Report an answer whose last token came at `now_s`; called before `finished`."""

    def exhausted(self, now_s: float) -> None:
        """No request is sent after `now_s`."""

    def over(self, now_s: float) -> None:
        """Tell that the load is over: a window may have begun since something was last told."""

    ended_early: EarlyEnd | None

    def set_in_flight_source(self, in_flight: Callable[[], InFlight]) -> None:
        """Set the function that returns the requests in flight; called before `started`."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long an evaluation took, s, on the wall clock or the virtual clock.

    `launch_s` is the part of `elapsed_s` for launching the server, or until it refused to start;
    None if a warm server was used.
    """

    elapsed_s: float
    launch_s: float | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """The metrics of one steady window. A metric that could not be measured is absent.

    `ended_early` is the SLO that was missed so clearly that the window was cut short. The metrics
    are then those up to that time, a lower bound for that of the SLO, and the configuration never
    counts as feasible.
    """

    metrics: Mapping[str, float]
    window_start_s: float
    window_end_s: float
    latency_source: Source
    energy_source: Source
    ended_early: str | None = None


class FailureKind(StrEnum):
    """The cause of a failed trial: configuration, infrastructure, a busy machine, or unstable."""

    CONFIGURATION = "configuration"  # told as infeasible, so that the sampler learns
    INFRASTRUCTURE = "infrastructure"  # told FAIL, the same point is tried again, twice
    BUSY = "busy"  # infrastructure that passes: the same point is tried again after a wait
    UNSTABLE = "unstable"  # infrastructure the first time, the configuration the second

    @property
    def is_machines(self) -> bool:
        """Whether it says nothing of the configuration."""
        return self in (FailureKind.INFRASTRUCTURE, FailureKind.BUSY)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no measurement."""

    kind: FailureKind
    reason: str
    log_path: Path | None = None
