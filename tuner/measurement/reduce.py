"""From the raw records of a run to the metrics of its steady window.

Every formula stands here once; live and virtual runs go through the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from tuner.load.overload import overload_sentence
from tuner.measurement.drafts import acceptance
from tuner.metrics import STATISTICS
from tuner.records import (
    Failure,
    FailureKind,
    FloatArray,
    InFlight,
    Measurement,
    PowerTimeline,
    RawRun,
    RequestRecord,
    RequestState,
)
from tuner.slo import Slo

_REFUSED_TIMES = 3.0  # windows to an answer: too few end in one for a percentile
_ENOUGH_ANSWERS = 4.0  # one after another: shorter windows have no intervals
_PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}


def ttft_ms(record: RequestRecord) -> float | None:
    """First token - scheduled time; None before the first token."""
    if record.token_times_s.size == 0:
        return None
    return float(record.token_times_s[0] - record.scheduled_s) * 1e3


def tpot_ms(record: RequestRecord) -> float | None:
    """(Last token - first token) / (output tokens - 1); None for fewer than two tokens."""
    n = record.token_times_s.size
    if n < 2:
        return None
    return float(record.token_times_s[-1] - record.token_times_s[0]) / (n - 1) * 1e3


def e2el_ms(record: RequestRecord) -> float | None:
    """Last token - scheduled time; None before the first token."""
    if record.token_times_s.size == 0:
        return None
    return float(record.token_times_s[-1] - record.scheduled_s) * 1e3


def at_least_ms(latency: str, under_way: InFlight, now_s: float) -> FloatArray:
    """Return what a latency of each request under way will be at least, ms; NaN where unknown."""
    firsts_s = under_way.first_token_s
    if latency == "ttft_ms":
        return 1e3 * (np.where(np.isnan(firsts_s), now_s, firsts_s) - under_way.scheduled_s)
    if latency == "e2el_ms":
        return 1e3 * (now_s - under_way.scheduled_s)
    gaps = np.where(under_way.output_tokens > 1, under_way.output_tokens - 1, np.nan)
    return 1e3 * (now_s - firsts_s) / gaps


def window_energy_j(power: PowerTimeline, start_s: float, end_s: float) -> float:
    """Counter at `end_s` - counter at `start_s`, linear between samples.

    Raises `ValueError` if the samples do not cover the window.
    """
    if power.times_s.size < 2 or power.times_s[0] > start_s or power.times_s[-1] < end_s:
        raise ValueError("the power samples do not cover the window")
    at_start, at_end = np.interp([start_s, end_s], power.times_s, power.energy_j)
    return float(at_end - at_start)


def reduce_run(run: RawRun, request_limits_ms: Mapping[str, float]) -> Measurement | Failure:
    """Return the metrics of the steady window, or why there are none.

    A failed request makes the whole run a failure: a server that refuses or drops work would
    otherwise look fast. So does a load that the server does not keep up with. Tokens count by
    arrival time, so a request cut by an edge of the window counts in part. A run that ended early
    for an SLO has the metrics known by then, and a lower bound of that SLO's latency.

    Args:
        run: the raw records.
        request_limits_ms: the bound of a good request, per latency (`tpot_ms`...).
    """
    failed = [r for r in run.requests if r.state is RequestState.FAILED]
    if failed:
        reason = f"{len(failed)} of {len(run.requests)} requests failed; first: {failed[0].error}"
        return Failure(FailureKind.UNSTABLE, reason)
    if run.invalid is not None:
        return Failure(FailureKind.INFRASTRUCTURE, run.invalid)
    early = run.ended_early
    if early is not None and early.missed is None:
        return Failure(FailureKind.CONFIGURATION, early.reason)
    start_s, end_s = run.window_start_s, run.window_end_s
    if behind := _falls_behind(run.requests, start_s, end_s):
        return Failure(FailureKind.CONFIGURATION, behind)
    tokens = _within(_token_times_s(run.requests), start_s, end_s)
    finished = _finished(run.requests, start_s, end_s)
    if early is None and (short := short_window(run, _REFUSED_TIMES)):
        return Failure(FailureKind.CONFIGURATION, short)
    if tokens == 0 or not finished:
        if early is not None:
            return Failure(FailureKind.CONFIGURATION, early.reason)
        return Failure(
            FailureKind.UNSTABLE,
            f"no request finished in the window of {end_s - start_s:.0f} s ({tokens} tokens "
            "arrived); lengthen it with --window-s",
        )
    try:
        energy_j = window_energy_j(run.power, start_s, end_s)
    except ValueError as error:
        return Failure(FailureKind.INFRASTRUCTURE, str(error))
    if energy_j <= 0:
        return Failure(
            FailureKind.INFRASTRUCTURE,
            f"the energy counter moved by {energy_j:.3f} J in the window",
        )
    metrics = _throughput(tokens, finished, energy_j, end_s - start_s)
    metrics |= _input_energy(run.requests, energy_j, start_s, end_s)
    metrics["offered_rate_req_s"] = _offered_rate(run.requests, start_s, end_s)
    metrics |= acceptance(run.server, start_s, end_s)
    metrics |= _latencies(run.requests, finished, start_s, end_s)
    metrics |= _goodput(run.requests, finished, request_limits_ms, start_s, end_s)
    if early is not None and early.missed is not None:
        metrics |= _at_least(run, finished, Slo.parse(early.missed))
    return Measurement(
        metrics=MappingProxyType(metrics),
        window_start_s=start_s,
        window_end_s=end_s,
        latency_source=run.latency_source,
        energy_source=run.power.source,
        ended_early=None if early is None else early.reason,
    )


def _at_least(run: RawRun, finished: list[RequestRecord], slo: Slo) -> dict[str, float]:
    """Return the missed percentile over what is known, also of the requests under way.

    Those are as late as they had become by the end: the metric is at least so much.
    """
    statistic, _, latency = slo.metric.partition("_")
    start_s, end_s = run.window_start_s, run.window_end_s
    under_way = InFlight.of(
        (
            r.scheduled_s,
            float(r.token_times_s[0]) if r.token_times_s.size else math.nan,
            r.output_tokens,
        )
        for r in run.requests
        if r.state is RequestState.CUT
    )
    least_ms = at_least_ms(latency, under_way, end_s)
    latency_ms = _LATENCIES_MS[latency]
    counted = finished
    if latency == "ttft_ms":
        counted = [r for r in run.requests if r.token_times_s.size and start_s < r.token_times_s[0]]
        least_ms = least_ms[np.isnan(under_way.first_token_s)]
    values = np.concatenate(
        [_present(latency_ms(r) for r in counted), least_ms[least_ms > slo.bound]]
    )
    # not between two values: the requests past the bound are more than the percentile leaves
    least = float(np.percentile(values, _PERCENTILES[statistic], method="higher"))
    return {slo.metric: least}


def _falls_behind(requests: Sequence[RequestRecord], start_s: float, end_s: float) -> str | None:
    """Say that the load outgrew the server, or return None.

    Under an overload, latency and throughput of an open load depend on when the window is taken.
    The queue may grow by chance: by 5 % of the arrivals plus three standard deviations of a Poisson
    count of the requests under way. A closed load cannot grow.
    """
    scheduled_s = np.array([r.scheduled_s for r in requests])
    ended_s = np.array([np.inf if r.state is RequestState.CUT else r.ended_s for r in requests])
    before, after = (
        int(np.sum((scheduled_s <= t_s) & (ended_s > t_s))) for t_s in (start_s, end_s)
    )
    arrived = int(np.sum((scheduled_s > start_s) & (scheduled_s <= end_s)))
    grown = after - before
    if grown <= 0.05 * arrived + 3.0 * math.sqrt(before + after):
        return None
    return overload_sentence(arrived, f"{end_s - start_s:.0f} s", grown, f"{before} under way")


def short_window(run: RawRun, times: float = 1.0) -> str | None:
    """Say that a mean answer is longer than so many windows, and what to take; None if it is not.

    The figures of such a window have no intervals, and it holds few whole answers. The mean is that
    of the answers that ended in it: those under way are the longer ones. Where none ended, it is
    theirs, each with its own TPOT until its last token.
    """
    start_s, end_s = run.window_start_s, run.window_end_s
    window_s = end_s - start_s
    finished = _finished(run.requests, start_s, end_s)
    answers_s = _present(_answer_s(r, tpot_ms(r)) for r in finished or run.requests)
    answer_s = float(answers_s.mean()) if answers_s.size else 0.0
    if answer_s <= times * window_s:
        return None
    enough_s = 10.0 * math.ceil(_ENOUGH_ANSWERS * answer_s / 10.0)
    return (
        f"the window of {window_s:.0f} s is shorter than an answer, which takes {answer_s:.0f} s "
        f"on average: take --window-s {enough_s:.0f}"
    )


def _answer_s(record: RequestRecord, own_tpot_ms: float | None) -> float | None:
    """Return how long an answer takes; None before its second token."""
    if record.state is RequestState.DONE and record.token_times_s.size:
        return float(record.token_times_s[-1] - record.scheduled_s)
    if own_tpot_ms is None:
        return None
    first_s = float(record.token_times_s[0] - record.scheduled_s)
    return first_s + own_tpot_ms / 1e3 * (record.output_tokens - 1)


def _offered_rate(requests: Iterable[RequestRecord], start_s: float, end_s: float) -> float:
    """Return the requests scheduled in the window / its length; a closed loop sends as it ends."""
    return sum(start_s < r.scheduled_s <= end_s for r in requests) / (end_s - start_s)


def _within(times_s: FloatArray, start_s: float, end_s: float) -> int:
    """Count the times in (start, end]."""
    return int(np.count_nonzero((times_s > start_s) & (times_s <= end_s)))


def _token_times_s(requests: Iterable[RequestRecord]) -> FloatArray:
    """Return when each token came, request by request; shape (tokens,)."""
    return np.concatenate([np.empty(0), *(r.token_times_s for r in requests)])


def _throughput(
    tokens: int, finished: list[RequestRecord], energy_j: float, window_s: float
) -> dict[str, float]:
    per_token_j = energy_j / tokens
    mean_output_tokens = float(np.mean([r.output_tokens for r in finished]))
    return {
        "energy_per_output_token_j": per_token_j,
        "energy_per_request_j": per_token_j * mean_output_tokens,
        "mean_power_w": energy_j / window_s,
        "output_throughput_tok_s": tokens / window_s,
        "request_throughput_req_s": len(finished) / window_s,
    }


def _input_energy(
    requests: Iterable[RequestRecord], energy_j: float, start_s: float, end_s: float
) -> dict[str, float]:
    """Return energy / prompt tokens; a prompt counts, whole, where its first token arrived.

    Over a steady window as many prompts are cut by one edge as by the other. All of a prompt
    counts, also what the prefix cache had.
    """
    prompt_tokens = sum(r.prompt_tokens for r in started_within(requests, start_s, end_s))
    return {"energy_per_input_token_j": energy_j / prompt_tokens} if prompt_tokens else {}


def _latencies(
    requests: Iterable[RequestRecord],
    finished: list[RequestRecord],
    start_s: float,
    end_s: float,
) -> dict[str, float]:
    samples = _samples_ms(requests, finished, start_s, end_s)
    return {
        f"{statistic}_{name}": value
        for name, values in samples.items()
        if values.size
        for statistic, value in _statistics(values).items()
    }


def latency_samples_ms(run: RawRun) -> dict[str, FloatArray]:
    """Return the values of each latency of the steady window, of which the metrics are made."""
    start_s, end_s = run.window_start_s, run.window_end_s
    finished = _finished(run.requests, start_s, end_s)
    return _samples_ms(run.requests, finished, start_s, end_s)


def _finished(
    requests: Iterable[RequestRecord], start_s: float, end_s: float
) -> list[RequestRecord]:
    return [
        r
        for r in requests
        if r.state is RequestState.DONE and start_s < r.token_times_s[-1] <= end_s
    ]


def started_within(
    requests: Iterable[RequestRecord], start_s: float, end_s: float
) -> list[RequestRecord]:
    """Return the requests whose first token came in (start, end]."""
    return [r for r in requests if r.token_times_s.size and start_s < r.token_times_s[0] <= end_s]


def _samples_ms(
    requests: Iterable[RequestRecord],
    finished: list[RequestRecord],
    start_s: float,
    end_s: float,
) -> dict[str, FloatArray]:
    """TTFT by first token in the window, TPOT and E2EL by last, ITL by the gap's end."""
    first_in_window = started_within(requests, start_s, end_s)
    return {
        "ttft_ms": _present(ttft_ms(r) for r in first_in_window),
        "tpot_ms": _present(tpot_ms(r) for r in finished),
        "itl_ms": token_gaps_ms(requests, start_s, end_s)[1],
        "e2el_ms": _present(e2el_ms(r) for r in finished),
    }


def _present(values: Iterable[float | None]) -> FloatArray:
    return np.array([v for v in values if v is not None], dtype=np.float64)


def token_gaps_ms(
    requests: Iterable[RequestRecord], start_s: float, end_s: float
) -> tuple[FloatArray, FloatArray]:
    """Return when each gap between two tokens of a request ended, s, and how long it was.

    Tokens that arrive together, as those of an accepted draft, share the gap before them evenly;
    those that come with the first token have none. Of the gaps that ended in (start, end], request
    by request; both of shape (gaps,).
    """
    parts = [r.token_times_s for r in requests if r.token_times_s.size]
    times_s = np.concatenate([np.empty(0), *parts])
    inside = (times_s > start_s) & (times_s <= end_s)
    if not times_s.size:
        return times_s, times_s
    firsts = np.cumsum([0, *[part.size for part in parts]])[:-1]
    begins = np.diff(times_s, prepend=-np.inf) != 0.0  # a chunk of tokens
    begins[firsts] = True
    starts = np.flatnonzero(begins)
    sizes = np.diff(starts, append=times_s.size)
    gaps_s = np.diff(times_s[starts], prepend=0.0) / sizes
    is_first = np.zeros(times_s.size, dtype=np.bool_)
    is_first[firsts] = True
    inside &= ~np.repeat(is_first[starts], sizes)  # nothing of the request came before
    return times_s[inside], np.repeat(gaps_s, sizes)[inside] * 1e3


def _statistics(values: FloatArray) -> dict[str, float]:
    """Return the mean and the percentiles of some values."""
    percentiles = np.percentile(values, list(_PERCENTILES.values())).tolist()
    by_name = {"mean": float(values.mean()), **dict(zip(_PERCENTILES, percentiles, strict=True))}
    return {name: by_name[name] for name in STATISTICS}


def _goodput(
    requests: Iterable[RequestRecord],
    finished: list[RequestRecord],
    limits_ms: Mapping[str, float],
    start_s: float,
    end_s: float,
) -> dict[str, float]:
    """Good requests per second, and their share of finished and of hopelessly waiting ones."""
    good = sum(is_good(r, limits_ms) for r in finished)
    ttft_limit_ms = limits_ms.get("ttft_ms")
    hopeless = 0
    if ttft_limit_ms is not None:
        hopeless = sum(
            waits_at(r, end_s) and (end_s - r.scheduled_s) * 1e3 > ttft_limit_ms for r in requests
        )
    return {
        "goodput_req_s": good / (end_s - start_s),
        "slo_attainment": good / (len(finished) + hopeless),
    }


def is_good(record: RequestRecord, limits_ms: Mapping[str, float]) -> bool:
    """Say whether a request met the limit of every latency that has one."""
    # a one-token answer has no TPOT and no gap to be late with
    return all(
        (value := latency_ms(record)) is None or value <= limits_ms[name]
        for name, latency_ms in _LATENCIES_MS.items()
        if name in limits_ms
    )


def waits_at(record: RequestRecord, now_s: float) -> bool:
    """Say whether a request had no token yet."""
    return record.token_times_s.size == 0 or bool(record.token_times_s[0] > now_s)


def _longest_gap_ms(record: RequestRecord) -> float | None:
    gaps_ms = token_gaps_ms([record], -math.inf, math.inf)[1]
    return float(gaps_ms.max()) if gaps_ms.size else None


_LATENCIES_MS: Mapping[str, Callable[[RequestRecord], float | None]] = MappingProxyType(
    {"ttft_ms": ttft_ms, "tpot_ms": tpot_ms, "e2el_ms": e2el_ms, "itl_ms": _longest_gap_ms}
)
