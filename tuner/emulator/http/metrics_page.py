"""Prometheus page of `/metrics`: vLLM's names, labels and buckets, as far as they are emulated."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate

from tuner.catalog.histogram_bounds import BETWEEN_TOKENS_S, FIRST_TOKEN_S, WHOLE_REQUEST_S
from tuner.emulator.http.served_engine import ServedEngine
from tuner.emulator.http.served_replicas import ServedReplicas
from tuner.emulator.speculation import speculation_in

_REASONS = ("stop", "length")


class _Histogram:
    """How many values were at most each bound; the last count is of those above all bounds."""

    def __init__(self, name: str, bounds_s: tuple[float, ...]) -> None:
        self._name, self._bounds_s = name, bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0

    def add(self, value_s: float) -> None:
        self._counts[bisect_left(self._bounds_s, value_s)] += 1
        self._sum_s += value_s

    def lines(self, labels: str) -> Iterator[str]:
        yield f"# TYPE {self._name} histogram"
        bounds = [*map(str, self._bounds_s), "+Inf"]
        for bound, count in zip(bounds, accumulate(self._counts), strict=True):
            yield f'{self._name}_bucket{{{labels},le="{bound}"}} {float(count)}'
        yield f"{self._name}_count{{{labels}}} {float(sum(self._counts))}"
        yield f"{self._name}_sum{{{labels}}} {self._sum_s}"


class CopyMetrics:
    """What one engine's answers were like, up to now."""

    def __init__(self) -> None:
        self._first = _Histogram("vllm:time_to_first_token_seconds", FIRST_TOKEN_S)
        self._between = _Histogram("vllm:inter_token_latency_seconds", BETWEEN_TOKENS_S)
        self._whole = _Histogram("vllm:e2e_request_latency_seconds", WHOLE_REQUEST_S)
        self._successes = dict.fromkeys(_REASONS, 0)

    def first_token(self, after_s: float) -> None:
        """Count a first token, so long after the request came."""
        self._first.add(after_s)

    def next_token(self, after_s: float) -> None:
        """Count the tokens of a later step, so long after those before."""
        self._between.add(after_s)

    def finished(self, reason: str, after_s: float) -> None:
        """Count a whole answer, so long after the request came."""
        self._successes[reason] += 1
        self._whole.add(after_s)

    def lines(self, engine: str, model: str) -> Iterator[str]:
        """Return the lines of the page."""
        yield "# TYPE vllm:request_success counter"
        for reason, count in self._successes.items():
            labels = f'{engine},finished_reason="{reason}",{model}'
            yield f"vllm:request_success_total{{{labels}}} {float(count)}"
        for histogram in (self._first, self._between, self._whole):
            yield from histogram.lines(f"{engine},{model}")


def page(live: ServedReplicas, metrics: Iterable[CopyMetrics], model_name: str) -> str:
    """Return the whole page; `metrics` are those of each copy."""
    model = f'model_name="{model_name}"'
    lines: list[str] = []
    for index, (copy, known) in enumerate(zip(live.copies, metrics, strict=True)):
        engine = f'engine="{index}"'
        lines += known.lines(engine, model)
        lines += _samples(_of_engine(copy), f"{{{engine},{model}}}")
        lines += _accepted_at(copy, f"{engine},{model}")
    lines += _samples(_of_gpus(live), f"{{{model}}}")
    return "\n".join(lines) + "\n"


def _samples(samples: Iterable[tuple[str, str, float]], labels: str) -> Iterator[str]:
    for name, kind, value in samples:
        yield f"# TYPE {name.removesuffix('_total')} {kind}"
        yield f"{name}{labels} {float(value)}"


def _of_engine(live: ServedEngine) -> Iterator[tuple[str, str, float]]:
    engine = live.engine
    yield "vllm:num_requests_running", "gauge", engine.running
    yield "vllm:num_requests_waiting", "gauge", engine.waiting
    yield "vllm:kv_cache_usage_perc", "gauge", engine.cache_usage
    yield "vllm:num_preemptions_total", "counter", engine.preemptions
    yield "vllm:prefix_cache_queries_total", "counter", engine.prefix_cache.queries
    yield "vllm:prefix_cache_hits_total", "counter", engine.prefix_cache.hits
    yield "vllm:prompt_tokens_total", "counter", engine.counters.prompt_tokens
    yield "vllm:generation_tokens_total", "counter", engine.counters.generation_tokens
    if (how := speculation_in(engine.steps)) is not None:
        drafts = engine.counters.generation_tokens / how.tokens
        yield "vllm:spec_decode_num_drafts_total", "counter", drafts
        yield "vllm:spec_decode_num_draft_tokens_total", "counter", drafts * how.depth
        yield "vllm:spec_decode_num_accepted_tokens_total", "counter", drafts * how.accepted


def _accepted_at(live: ServedEngine, labels: str) -> Iterator[str]:
    """Return the lines of what was accepted at each position of a draft."""
    how = speculation_in(live.engine.steps)
    if how is None:
        return
    name = "vllm:spec_decode_num_accepted_tokens_per_pos"
    drafts = live.engine.counters.generation_tokens / how.tokens
    yield f"# TYPE {name} counter"
    for position, share in enumerate(how.accepted_at):
        yield f'{name}_total{{{labels},position="{position}"}} {drafts * share}'


def _of_gpus(live: ServedReplicas) -> Iterator[tuple[str, str, float]]:
    """The GPUs of the whole server, for a client that sees them in no other way."""
    yield "tuner_emulated:energy_joules_total", "counter", live.energy_j()
    yield "tuner_emulated:power_watts", "gauge", live.power_w()
    yield "tuner_emulated:sm_clock_megahertz", "gauge", live.clock_mhz()
