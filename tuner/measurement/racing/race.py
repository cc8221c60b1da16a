"""Race: whether a running trial has lost to one that was measured in full on the same requests.

In an open loop every trial is sent the same requests at the same times. What they ask for makes the
energy of ten seconds differ by tens of percent, but cancels in the ratio of two trials: after half
a minute that is known to a fraction of a percent, long before the window even begins. So a trial
ends as soon as it is clear that it misses an SLO, or is no better in any objective than a rival
that meets all of them. However often it is asked, that is a false alarm in one trial of a hundred
at most.

What counts is a difference: a trial that is better by less than the slack repeats what is known. A
high percentile is made by few heavy moments, of which a mean says little. So the slowest quarter of
the requests is compared by itself, and enough of what was slow for the rival has to have passed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tuner.measurement.racing.anytime_test import LEAST_BATCHES, log_evidence
from tuner.measurement.racing.rival import COMPARED_LATENCIES, Rival
from tuner.measurement.racing.sentence import Lost, lost_sentence
from tuner.measurement.window_statistics import WindowStatistics, as_column
from tuner.records import EarlyEnd, FloatArray
from tuner.slo import Slo, meets_all

# in proportion to the tokens, and those are the same
COMPARED_ENERGIES = (
    "energy_per_output_token_j",
    "energy_per_input_token_j",
    "energy_per_request_j",
    "mean_power_w",
)
_FALSE_ALARM = 0.01  # of one trial
_ENERGY_SLACK = 0.005
_LATENCY_SLACK = 0.02  # the same window again has another p99 by as much
_MISSED_BY = 0.1  # log; the ratio of two percentiles is not quite that of what is slow
_ROOM = 0.3  # log(bound / value) of a rival that surely meets what it is not compared in
_LIFETIMES = 3.0  # of requests, until the load has filled the server
_LEAST_BATCH_S = 5.0
_SAME_TIME_S = 1e-6
_LEAST_J = 1e-9
_HIGH = frozenset({"p90", "p95", "p99"})
_SLOW_SHARE = 0.75
_HEAVY_PERCENTILE, _LEAST_HEAVY = 95.0, 4


def is_compared(metric: str) -> bool:
    """Say whether a race can tell which of two trials has less of a metric."""
    statistic, _, latency = metric.partition("_")
    is_latency = statistic in {"mean", "p50", *_HIGH} and latency in COMPARED_LATENCIES
    return is_latency or metric in COMPARED_ENERGIES


@dataclass(frozen=True, slots=True, eq=False)
class Race:
    """What a trial runs against: the metrics to minimise, all compared; the SLOs; the rivals."""

    objectives: tuple[str, ...]
    slos: tuple[Slo, ...]
    rivals: tuple[Rival, ...]

    def lost(
        self, statistics: WindowStatistics, load_start_s: float, now_s: float
    ) -> EarlyEnd | None:
        """Say to whom the load that began at `load_start_s` has lost by now, if to anybody."""
        answered_s = as_column(statistics.answered_s)
        if answered_s.size < 2 or not statistics.has_samples:
            return None
        questions = len(self.rivals) * (1 + len(self.slos))
        needed = math.log(questions / _FALSE_ALARM) if questions else math.inf
        for rival in self.rivals:
            pair = _Pair(statistics, rival, load_start_s, now_s, needed)
            how = self._how_lost(pair)
            if how is not None:
                compared = dict.fromkeys((*self.objectives, *(slo.metric for slo in self.slos)))
                ratios = {m: r for m in compared if (r := pair.log_ratio(m)) is not None}
                sentence = lost_sentence(how, Lost(rival.trial, ratios), now_s - load_start_s)
                return EarlyEnd(sentence, None)
        return None

    def _how_lost(self, pair: _Pair) -> str | None:
        values = pair.rival.metrics
        for slo in self.slos:
            if slo.metric in values and self._misses(slo, pair):
                return f"misses {slo}, beside"
        is_met = meets_all(values, self.slos)
        if is_met and all(pair.is_higher(m, -_slack(m)) for m in self.objectives):
            others = (slo for slo in self.slos if slo.metric not in self.objectives)
            if all(self._gains_nothing(slo, pair) for slo in others):
                return "is no better than"
        return None

    def _misses(self, slo: Slo, pair: _Pair) -> bool:
        """Say whether an SLO is missed: as the rival misses it, or by far where that meets it."""
        violation = slo.violation(pair.rival.metrics[slo.metric])
        if violation > 0.0:
            return pair.is_higher(slo.metric, -min(violation, _slack(slo.metric)))
        return pair.is_higher(slo.metric, _MISSED_BY - violation)

    def _gains_nothing(self, slo: Slo, pair: _Pair) -> bool:
        """Say whether the rival has room enough in an SLO, or is not worse in it."""
        has_room = slo.violation(pair.rival.metrics[slo.metric]) < -_ROOM
        return has_room or pair.is_higher(slo.metric, -_slack(slo.metric))


def _slack(metric: str) -> float:
    return _ENERGY_SLACK if metric in COMPARED_ENERGIES else _LATENCY_SLACK


class _Pair:
    """A running load and a rival, batch by batch since both had filled their servers."""

    def __init__(
        self,
        statistics: WindowStatistics,
        rival: Rival,
        load_start_s: float,
        now_s: float,
        needed: float,
    ) -> None:
        self.rival = rival
        self._statistics = statistics
        self._load_start_s = load_start_s
        self._needed = needed
        own_ms = as_column(statistics.latencies_ms["e2el_ms"])
        lifetime_s = max(rival.lifetime_s, float(np.mean(own_ms)) / 1e3)
        until_s = min(now_s, statistics.sampled_s[-1]) - load_start_s
        self._start_s = _LIFETIMES * lifetime_s
        self._batch_s = max(_LEAST_BATCH_S, lifetime_s)
        room_s = min(until_s, float(rival.energy_s[-1])) - self._start_s
        self._batches = max(0, int(room_s / self._batch_s))

    def is_higher(self, metric: str, by: float) -> bool:
        """Say whether log(own value / the rival's) of the whole window is clearly above `by`."""
        if self._batches < LEAST_BATCHES or not is_compared(metric):
            return False
        if metric in COMPARED_ENERGIES:
            return log_evidence(np.log(self._energy_ratios), by) > self._needed
        statistic, _, latency = metric.partition("_")
        answers = self._answers[latency]
        if statistic not in _HIGH:
            return log_evidence(answers.batch_means(), by) > self._needed
        slow = answers.slowest()
        return log_evidence(slow.batch_means(), by) > self._needed and answers.stay_heavy(
            self.rival.in_window(latency), by
        )

    def log_ratio(self, metric: str) -> float | None:
        """Return log(own value / the rival's) so far; None where they are not compared."""
        if not self._batches or not is_compared(metric):
            return None
        if metric in COMPARED_ENERGIES:
            return float(np.mean(np.log(self._energy_ratios)))
        statistic, _, latency = metric.partition("_")
        answers = self._answers[latency]
        found = answers.slowest() if statistic in _HIGH else answers
        return float(found.log_ratios.mean()) if found.log_ratios.size else None

    @cached_property
    def _energy_ratios(self) -> FloatArray:
        """Own energy / the rival's, shape (batches,)."""
        edges_s = self._start_s + self._batch_s * np.arange(self._batches + 1)
        own_s = as_column(self._statistics.sampled_s) - self._load_start_s
        own_j = np.diff(np.interp(edges_s, own_s, as_column(self._statistics.energy_j)))
        theirs_j = np.diff(np.interp(edges_s, self.rival.energy_s, self.rival.energy_j))
        ratios: FloatArray = np.maximum(own_j, _LEAST_J) / np.maximum(theirs_j, _LEAST_J)
        return ratios

    @cached_property
    def _answers(self) -> dict[str, _Answers]:
        """The answers that both have by now, for each latency."""
        rival, seen = self.rival, self._statistics
        answered_s = as_column(seen.answered_s) - self._load_start_s
        scheduled_s = answered_s - as_column(seen.latencies_ms["e2el_ms"]) / 1e3
        after = np.searchsorted(rival.scheduled_s, scheduled_s - _SAME_TIME_S)
        theirs = np.minimum(after, rival.scheduled_s.size - 1)
        both_s = np.maximum(answered_s, rival.answered_s[theirs])
        batch = np.floor((both_s - self._start_s) / self._batch_s)
        keep = np.abs(rival.scheduled_s[theirs] - scheduled_s) < _SAME_TIME_S
        keep &= (batch >= 0) & (batch < self._batches)
        found = {}
        for latency in COMPARED_LATENCIES:
            own_ms, theirs_ms = as_column(seen.latencies_ms[latency]), rival.latencies_ms[latency]
            known = keep & (own_ms > 0) & (theirs_ms[theirs] > 0)
            of_rival = theirs_ms[theirs[known]]
            found[latency] = _Answers(batch[known].astype(np.intp), own_ms[known], of_rival)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """One latency of the answers to the same requests, ms, and the batch of each; all (N,)."""

    batch: NDArray[np.intp]
    own_ms: FloatArray
    theirs_ms: FloatArray

    @property
    def log_ratios(self) -> FloatArray:
        """Log of the own latency / the rival's, shape (N,)."""
        ratios: FloatArray = np.log(self.own_ms / self.theirs_ms)
        return ratios

    def batch_means(self) -> FloatArray:
        """Return the mean log ratio of each batch that has an answer."""
        counts = np.bincount(self.batch)
        sums = np.bincount(self.batch, weights=self.log_ratios)
        means: FloatArray = sums[counts > 0] / counts[counts > 0]
        return means

    def slowest(self) -> _Answers:
        """Return the answers that are slow for both together, so that neither is chosen by luck."""
        if not self.batch.size:
            return self
        both = self.own_ms * self.theirs_ms
        slow = both >= np.quantile(both, _SLOW_SHARE)
        return _Answers(self.batch[slow], self.own_ms[slow], self.theirs_ms[slow])

    def stay_heavy(self, window_ms: FloatArray, by: float) -> bool:
        """Say whether enough that was slow for the rival has passed, and was no faster in number.

        `window_ms` is what its steady window had.
        """
        if not window_ms.size:
            return False
        slow_ms = float(np.percentile(window_ms, _HEAVY_PERCENTILE))
        theirs = int(np.sum(self.theirs_ms >= slow_ms))
        own = int(np.sum(self.own_ms >= slow_ms * math.exp(by)))
        return theirs >= _LEAST_HEAVY and own >= theirs
