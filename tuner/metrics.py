"""The names of the metrics: a contract between the store, SLOs, objectives and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from tuner.errors import UsageError, unknown_name


class Direction(StrEnum):
    """Which values are better."""

    MIN = "min"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name, its label for people, unit, better direction and meaning."""

    name: str
    label: str
    unit: str
    better: Direction
    meaning: str


class Output(StrEnum):
    """What the answers of a workload are, and so what energy is counted for."""

    TEXT = "text"
    ANSWER = "answer"  # text that counts by whole answers, because their length is a knob
    IMAGE = "image"
    VIDEO = "video"

    @property
    def is_text(self) -> bool:
        """Whether answers are made of tokens."""
        return self in (Output.TEXT, Output.ANSWER)


@dataclass(frozen=True, slots=True)
class OutputKind:
    """A kind of answers: the unit that its work is counted in, and the metrics in that unit.

    Attributes:
        output: which kind.
        unit: one of what is made, in a sentence: "per image".
        columns: the latencies that tables show of a trial.
        costs: what a saving of energy may cost, beside the default's.
        energy: the metric of the energy per unit.
        throughput: the metric of the units per second.
        latencies: what a request's latencies are, the most telling one first.
        many: the amount that costs are told of, in words, and `many_units` as a number.
        objectives: what a study minimises unless it says otherwise.
        window_s: the shortest and the longest window of a study that does not say.
        space: the search space of a study that does not say.
    """

    output: Output
    unit: str
    energy: str
    throughput: str
    latencies: tuple[str, ...]
    columns: tuple[str, ...]
    costs: tuple[str, ...]
    many: str
    many_units: float
    window_s: tuple[float, float]
    space: str

    @property
    def objectives(self) -> tuple[str, str]:
        """The metrics that a study minimises unless it says otherwise."""
        return (self.energy, f"p99_{self.latencies[0]}")

    def lacks(self, metric: str) -> bool:
        """Say whether a metric is one of another kind of answers."""
        return metric in _OWNERS and self.output not in _OWNERS[metric]


OUTPUT_KINDS: Mapping[Output, OutputKind] = MappingProxyType(
    {
        Output.ANSWER: OutputKind(
            Output.ANSWER,
            unit="answer",
            energy="energy_per_answer_j",
            throughput="answers_per_s",
            latencies=("e2el_ms", "ttft_ms", "tpot_ms", "itl_ms"),
            columns=("p99_e2el_ms", "p99_ttft_ms"),
            costs=("p99_e2el_ms", "mean_e2el_ms", "p99_ttft_ms", "mean_tpot_ms", "answers_per_s"),
            many="1,000 answers",
            many_units=1e3,
            window_s=(60.0, 600.0),
            space="thinking",
        ),
        Output.TEXT: OutputKind(
            Output.TEXT,
            unit="output token",
            energy="energy_per_output_token_j",
            throughput="output_throughput_tok_s",
            latencies=("tpot_ms", "ttft_ms", "itl_ms", "e2el_ms"),
            columns=("p99_tpot_ms", "p99_ttft_ms"),
            costs=(
                "p99_tpot_ms",
                "mean_tpot_ms",
                "p99_ttft_ms",
                "mean_e2el_ms",
                "output_throughput_tok_s",
            ),
            many="million output tokens",
            many_units=1e6,
            window_s=(20.0, 180.0),
            space="default",
        ),
        Output.IMAGE: OutputKind(
            Output.IMAGE,
            unit="image",
            energy="energy_per_image_j",
            throughput="images_per_s",
            latencies=("image_latency_ms",),
            columns=("p99_image_latency_ms",),
            costs=("p99_image_latency_ms", "mean_image_latency_ms", "images_per_s"),
            many="1,000 images",
            many_units=1e3,
            window_s=(60.0, 600.0),
            space="diffusion",
        ),
        Output.VIDEO: OutputKind(
            Output.VIDEO,
            unit="second of video",
            energy="energy_per_video_s_j",
            throughput="video_s_per_s",
            latencies=("video_latency_ms",),
            columns=("p99_video_latency_ms",),
            costs=("p99_video_latency_ms", "mean_video_latency_ms", "video_s_per_s"),
            many="hour of video",
            many_units=3600.0,
            window_s=(600.0, 7200.0),
            space="diffusion",
        ),
    }
)
TEXT = OUTPUT_KINDS[Output.TEXT]
_TOKENS = frozenset((Output.TEXT, Output.ANSWER))

# Of a whole answer, whatever it is made of; those of text also have latencies of its tokens.
WHOLE_ANSWER = frozenset(("e2el_ms", "image_latency_ms", "video_latency_ms"))

LATENCIES: Mapping[str, str] = MappingProxyType(
    {
        "ttft_ms": "first streamed token - scheduled time",
        "tpot_ms": "(last token - first token) / (output tokens - 1), per request",
        "itl_ms": "gap between consecutive tokens, pooled over requests; tokens that arrive "
        "together share the gap before them evenly",
        "e2el_ms": "last token - scheduled time",
        "image_latency_ms": "image received - scheduled time",
        "video_latency_ms": "video received - scheduled time",
    }
)
STATISTICS: Mapping[str, str] = MappingProxyType(
    {
        "mean": "mean",
        "p50": "median",
        "p90": "90th percentile",
        "p95": "95th percentile",
        "p99": "99th percentile",
    }
)

_LATENCY_LABELS = {"image_latency_ms": "image latency", "video_latency_ms": "video latency"}


def latency_label(name: str) -> str:
    """Return what people call a latency, such as TPOT."""
    return _LATENCY_LABELS.get(name, name.removesuffix("_ms").upper())


# As vLLM numbers them; a deeper draft has the first of them.
DRAFT_POSITIONS = tuple(f"draft_acceptance_rate_pos_{position}" for position in range(8))

_SCALARS = (
    Metric(
        "energy_per_output_token_j",
        "energy per output token",
        "J/token",
        Direction.MIN,
        "gross GPU energy of the window / output tokens that arrived in it",
    ),
    Metric(
        "energy_per_image_j",
        "energy per image",
        "J/image",
        Direction.MIN,
        "gross GPU energy from the first to the last image of the window / images after the first",
    ),
    Metric(
        "energy_per_video_s_j",
        "energy per second of video",
        "J/s of video",
        Direction.MIN,
        "gross GPU energy from the first to the last video of the window / seconds of video "
        "(frames / frame rate) after the first",
    ),
    Metric(
        "energy_per_answer_j",
        "energy per answer",
        "J/answer",
        Direction.MIN,
        "energy per request, of a workload whose answers think more or less by a knob",
    ),
    Metric(
        "energy_per_request_j",
        "energy per request",
        "J/request",
        Direction.MIN,
        "energy per output token, image or second of video x how many of them the requests "
        "finished in the window have on average",
    ),
    Metric(
        "energy_per_input_token_j",
        "energy per input token",
        "J/token",
        Direction.MIN,
        "gross GPU energy of the window / prompt tokens of the requests whose first token arrived "
        "in it",
    ),
    Metric(
        "mean_power_w",
        "mean power",
        "W",
        Direction.MIN,
        "gross GPU energy of the window / its length",
    ),
    Metric(
        "output_throughput_tok_s",
        "output throughput",
        "tok/s",
        Direction.MAX,
        "output tokens that arrived in the window / its length",
    ),
    Metric(
        "images_per_s",
        "image throughput",
        "images/s",
        Direction.MAX,
        "images received in the window / its length",
    ),
    Metric(
        "video_s_per_s",
        "video throughput",
        "s of video/s",
        Direction.MAX,
        "seconds of video received in the window / its length",
    ),
    Metric(
        "answers_per_s",
        "answer throughput",
        "answers/s",
        Direction.MAX,
        "answers finished in the window / its length",
    ),
    Metric(
        "request_throughput_req_s",
        "request throughput",
        "req/s",
        Direction.MAX,
        "requests finished in the window / its length",
    ),
    Metric(
        "offered_rate_req_s",
        "offered rate",
        "req/s",
        Direction.MAX,
        "requests scheduled in the window / its length",
    ),
    Metric(
        "goodput_req_s",
        "goodput",
        "req/s",
        Direction.MAX,
        "requests finished in the window that met every latency SLO / its length",
    ),
    Metric(
        "slo_attainment",
        "SLO attainment",
        "share",
        Direction.MAX,
        "share of the window's requests that met every latency SLO",
    ),
    Metric(
        "draft_acceptance_rate",
        "draft acceptance",
        "share",
        Direction.MAX,
        "accepted tokens of drafts / drafted tokens, by the server's counters over the window",
    ),
    Metric(
        "mean_acceptance_length",
        "acceptance length",
        "tok",
        Direction.MAX,
        "1 + accepted tokens / drafts: what a step yields of a sequence that has a draft",
    ),
    *(
        Metric(
            name,
            f"draft acceptance at {position}",
            "share",
            Direction.MAX,
            f"accepted tokens at position {position} of drafts, from 0 / drafts",
        )
        for position, name in enumerate(DRAFT_POSITIONS)
    ),
)

# Beside the metrics of a window on unseen traffic, of which it is none: see `tuner.load.heaviness`.
STRETCH_HEAVINESS = "stretch_heaviness"
HEAVINESS_DRAWS = 256  # stretches tell how heavy those of a workload are

METRICS: Mapping[str, Metric] = MappingProxyType(
    {m.name: m for m in _SCALARS}
    | {
        f"{stat}_{latency}": Metric(
            f"{stat}_{latency}",
            f"{stat} {latency_label(latency)}",
            "ms",
            Direction.MIN,
            f"{how} of: {meaning}",
        )
        for latency, meaning in LATENCIES.items()
        for stat, how in STATISTICS.items()
    }
)


_OWNERS: Mapping[str, frozenset[Output]] = MappingProxyType(
    {
        **{k.energy: frozenset((k.output,)) for k in OUTPUT_KINDS.values()},
        **{k.throughput: frozenset((k.output,)) for k in OUTPUT_KINDS.values()},
        **{
            f"{statistic}_{latency}": _TOKENS if k.output.is_text else frozenset((k.output,))
            for k in OUTPUT_KINDS.values()
            for latency in k.latencies
            for statistic in STATISTICS
        },
        **dict.fromkeys(
            (
                TEXT.energy,
                TEXT.throughput,
                "energy_per_input_token_j",
                "draft_acceptance_rate",
                "mean_acceptance_length",
                *DRAFT_POSITIONS,
            ),
            _TOKENS,
        ),
    }
)


def kind_of(metrics: Mapping[str, float]) -> OutputKind:
    """Return what a measurement's answers were, by the energy that it has; text if it has none.

    What counts by answers has the energy per token too, and comes first.
    """
    return next((k for k in OUTPUT_KINDS.values() if k.energy in metrics), TEXT)


def metric_named(name: str) -> Metric:
    """Return the metric, or raise `UsageError` naming the nearest ones."""
    try:
        return METRICS[name]
    except KeyError:
        raise UsageError(unknown_name("metric", name, METRICS)) from None
