"""From the raw records of a run to the metrics of its steady window.

Every formula stands here once; live and virtual runs go through the same code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tuner.load.overload import overload_sentence
from tuner.measurement.drafts import acceptance
from tuner.measurement.requests.latencies import (
    LATENCY_MS,
    at_least_ms,
    finished_within,
    hopeless_after_ms,
    is_good,
    present,
    samples_ms,
    started_within,
    tpot_ms,
    waits_at,
)
from tuner.measurement.requests.made import made_within, units_of, whole_answers
from tuner.metrics import OUTPUT_KINDS, STATISTICS, TEXT, Output, OutputKind
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
    arrival time, so a request cut by an edge of the window counts in part; images and videos arrive
    whole, and the window begins and ends with one (`whole_answers`). A run that ended early for an
    SLO has the metrics known by then, and a lower bound of that SLO's latency.

    Args:
        run: the raw records.
        request_limits_ms: the bound of a good request, per latency (`tpot_ms`...).
    """
    failed = [r for r in run.requests if r.state is RequestState.FAILED]
    if failed:
        reason = f"{len(failed)} of {len(run.requests)} requests failed; first: {failed[0].error}"
        return Failure(FailureKind.UNSTABLE, reason)
    if run.invalid is not None:
        return Failure(_kind_of_invalid(run), run.invalid)
    early = run.ended_early
    if early is not None and early.missed is None:
        return Failure(FailureKind.CONFIGURATION, early.reason)
    kind, asked_s = OUTPUT_KINDS[run.output], run.window_end_s - run.window_start_s
    run = whole_answers(run)
    start_s, end_s = run.window_start_s, run.window_end_s
    if behind := _falls_behind(run.requests, start_s, end_s):
        return Failure(FailureKind.CONFIGURATION, behind)
    made = made_within(run, start_s, end_s)
    finished = finished_within(run.requests, start_s, end_s)
    if early is None and (short := short_window(run, _REFUSED_TIMES, asked_s)):
        return Failure(FailureKind.CONFIGURATION, short)
    if made == 0 or not finished:
        if early is not None:
            return Failure(FailureKind.CONFIGURATION, early.reason)
        return Failure(
            FailureKind.UNSTABLE,
            f"no request finished in the window of {asked_s:.0f} s ({made:g} {kind.unit}s "
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
    metrics = _throughput(kind, made, finished, energy_j, end_s - start_s)
    if run.output.is_text:
        metrics |= _input_energy(run.requests, energy_j, start_s, end_s)
    metrics["offered_rate_req_s"] = _offered_rate(run.requests, start_s, end_s)
    metrics |= acceptance(run.server, start_s, end_s)
    metrics |= _latencies(run, finished)
    metrics |= _goodput(run.requests, finished, request_limits_ms, start_s, end_s)
    if early is not None and early.missed is not None:
        metrics |= _at_least(run, finished, Slo.parse(early.missed))
    return Measurement(
        metrics=metrics,
        window_start_s=start_s,
        window_end_s=end_s,
        latency_source=run.latency_source,
        energy_source=run.power.source,
        ended_early=None if early is None else early.reason,
    )


def _kind_of_invalid(run: RawRun) -> FailureKind:
    """Return busy, which is waited for, unless no window began: then the requests ran out."""
    has_run_out = run.window_start_s >= run.window_end_s and run.ended_early is None
    return FailureKind.INFRASTRUCTURE if has_run_out else FailureKind.BUSY


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
    latency_ms = LATENCY_MS[latency]
    counted = finished
    if latency == "ttft_ms":
        counted = [r for r in run.requests if r.token_times_s.size and start_s < r.token_times_s[0]]
        least_ms = least_ms[np.isnan(under_way.first_token_s)]
    values = np.concatenate(
        [present(latency_ms(r) for r in counted), least_ms[least_ms > slo.bound]]
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


def short_window(run: RawRun, times: float = 1.0, asked_s: float | None = None) -> str | None:
    """Say that a mean answer is longer than so many windows, and what to take; None if it is not.

    The figures of such a window have no intervals, and it holds few whole answers. The mean is that
    of the answers that ended in it: those under way are the longer ones. Where none ended, it is
    theirs, each with its own TPOT until its last token. `asked_s` is how long the window was to be,
    if it is not the run's.
    """
    start_s, end_s = run.window_start_s, run.window_end_s
    window_s = end_s - start_s if asked_s is None else asked_s
    finished = finished_within(run.requests, start_s, end_s)
    answers_s = present(_answer_s(r, tpot_ms(r)) for r in finished or run.requests)
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


def _throughput(
    kind: OutputKind, made: float, finished: list[RequestRecord], energy_j: float, window_s: float
) -> dict[str, float]:
    """Return energy and throughput; what counts by answers has them of tokens and of answers."""
    counted = TEXT if kind.output.is_text else kind
    per_unit_j = energy_j / made
    per_request_j = per_unit_j * float(np.mean([units_of(r) for r in finished]))
    requests_per_s = len(finished) / window_s
    of_answers = {kind.energy: per_request_j, kind.throughput: requests_per_s}
    return {
        **(of_answers if kind.output is Output.ANSWER else {}),
        counted.energy: per_unit_j,
        "energy_per_request_j": per_request_j,
        "mean_power_w": energy_j / window_s,
        counted.throughput: made / window_s,
        "request_throughput_req_s": requests_per_s,
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


def _latencies(run: RawRun, finished: list[RequestRecord]) -> dict[str, float]:
    start_s, end_s = run.window_start_s, run.window_end_s
    samples = samples_ms(run.requests, finished, start_s, end_s, run.output)
    return {
        f"{statistic}_{name}": value
        for name, values in samples.items()
        if values.size
        for statistic, value in _statistics(values).items()
    }


def latency_samples_ms(run: RawRun) -> dict[str, FloatArray]:
    """Return the values of each latency of the steady window, of which the metrics are made."""
    run = whole_answers(run)
    start_s, end_s = run.window_start_s, run.window_end_s
    finished = finished_within(run.requests, start_s, end_s)
    return samples_ms(run.requests, finished, start_s, end_s, run.output)


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
    hopeless, late_ms = 0, hopeless_after_ms(limits_ms)
    if late_ms is not None:
        hopeless = sum(
            waits_at(r, end_s) and (end_s - r.scheduled_s) * 1e3 > late_ms for r in requests
        )
    return {
        "goodput_req_s": good / (end_s - start_s),
        "slo_attainment": good / (len(finished) + hopeless),
    }
