"""Baseline doubts: what the default's measurement says against a study's SLOs and load.

A night that answers a mistyped question is lost. The rules are wide, so that a sound study is not
stopped (see docs/optimiser.md for the figures behind them).
"""

from __future__ import annotations

from collections.abc import Sequence

from tuner.analysis.outcomes import metric
from tuner.analysis.outlook import margins
from tuner.metrics import LATENCIES, METRICS, Direction
from tuner.records import FailureKind
from tuner.slo import Slo
from tuner.store.rows import TrialRow

HOPELESS = 10.0  # times the bound: no configuration makes up for it
# Times the default's value: what no configuration that keeps up with the load reaches. The time of
# a token grows with the batch and a slower clock; a request may also wait for its turn.
_REACH = 10.0
_REACH_OF_WAITING = 100.0
_WAITING = ("ttft_ms", "e2el_ms")
_MS_PER_S = 1e3


def doubts(baseline: TrialRow, slos: Sequence[Slo]) -> list[str]:
    """Return one sentence for each reason to ask the user before the search; mostly none.

    `baseline` is the default's trial at the study's load. The reasons: it misses an SLO by ten
    times or more, it does not work at this load, or it is so far within every SLO that none of them
    can rule a configuration out.
    """
    if baseline.failure is not None:
        return _of_failure(baseline)
    values = {slo: metric(baseline, slo.metric) for slo in slos}
    known = {slo: value for slo, value in values.items() if value is not None}
    missed = [
        _missed(slo, value, times)
        for slo, value in known.items()
        if (times := _times_beyond(slo, value)) >= HOPELESS
    ]
    if missed or not known:
        return missed
    slack = {slo: 1.0 / times for slo, v in known.items() if (times := _times_beyond(slo, v))}
    if len(slack) == len(slos) and all(slack[slo] > reach_of(slo) for slo in slack):
        return [_never_binds(known)]
    return []


def little_room(baseline: TrialRow, slos: Sequence[Slo]) -> list[str]:
    """Return one sentence for each SLO that the default misses, or may miss on other traffic.

    An hour has heavier minutes than a window does. What saves energy is mostly slower.
    """
    sentences = []
    needed = margins(slos, [baseline], [])
    for slo in slos:
        value = metric(baseline, slo.metric)
        if value is None:
            continue
        has, beyond = f"{value:.4g} {METRICS[slo.metric].unit}", slo.violation(value)
        if beyond > 0.0:
            sentences.append(
                f"the default misses {slo} at this load, with {has}: what saves energy is mostly "
                "slower still, so a lower --request-rate or a wider bound may be needed"
            )
        elif beyond > -needed[str(slo)].needed:
            sentences.append(
                f"the default is near {slo}, with {has}: on other stretches of this traffic, or "
                "over an hour, it may miss it, and little can be saved"
            )
    return sentences


def reach_of(slo: Slo) -> float:
    """Return how many times the default's value this metric may reach in a study."""
    return _REACH_OF_WAITING if slo.metric.partition("_")[2] in _WAITING else _REACH


def _of_failure(baseline: TrialRow) -> list[str]:
    failure = baseline.failure
    if failure is None or failure.kind is not FailureKind.CONFIGURATION:
        return []  # the machine's fault says nothing about the request
    return [
        f"the default cannot be measured at this load: {failure.reason} (--request-rate 0.7x takes "
        "a share of what the default sustains)"
    ]


def _times_beyond(slo: Slo, value: float) -> float:
    """Return value / bound, or bound / value of a lower bound: above 1 the SLO is missed."""
    if slo.direction is Direction.MIN:
        return value / slo.bound
    return slo.bound / value if value > 0.0 else float("inf")


def _missed(slo: Slo, value: float, times: float) -> str:
    unit = METRICS[slo.metric].unit
    hint = ""
    if slo.metric.partition("_")[2] in LATENCIES and 0.1 <= times / _MS_PER_S <= HOPELESS:
        hint = f" (bounds are in milliseconds: did you mean {slo.bound * _MS_PER_S:g}?)"
    return (
        f"the default misses {slo} by far: it has {value:.4g} {unit}, {times:,.0f} times the bound"
        f"{hint}"
    )


def _never_binds(known: dict[Slo, float]) -> str:
    found = ", ".join(
        f"{slo} (the default has {value:.4g} {METRICS[slo.metric].unit})"
        for slo, value in known.items()
    )
    what = "the SLO is" if len(known) == 1 else "every SLO is"
    return (
        f"{what} too wide to rule anything out: {found}; the study would choose by energy alone, "
        "however slow"
    )
