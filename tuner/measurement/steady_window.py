"""Steady window: when it begins and ends, decided while the load runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from tuner.measurement.early_stop import Backlog, first_missed
from tuner.measurement.precision import Precision
from tuner.measurement.racing.race import Race
from tuner.measurement.window_statistics import WindowStatistics, as_column
from tuner.records import EarlyEnd, InFlight
from tuner.slo import Slo

# The load is looked at again after so much more time, a share of the time since it began.
_LOOK_SHARE = 0.05
_LEAST_LOOK_S = 0.25
# The long requests among the first ones are still under way when as many have ended as are.
_TURNOVERS = 1.5
# What changes slowly cannot be seen in less time, a share of the shortest window.
_LEAST_WARMUP_SHARE = 0.1
# A window ends early only if it was precise enough so many times in a row: luck does not last.
_LOOKS_IN_A_ROW = 2
_DRAINED_SHARE = 0.15
_DRAINED_GAPS = 3.0
_LEAST_SENT = 10
_STRETCH_AFTER = 0.5  # of the window
_UNSETTLED = "the load had not settled when the window began"


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """How long the steady window is, and when to stop waiting for it to begin.

    Attributes:
        window_s: length of the steady window, unless `precision` decides it.
        warmup_limit_s: the window begins at the latest this long after the load, settled or not.
        precision: what the window's length adapts to; None for a fixed length.
        slos: the load is ended once one of them is clearly missed; none for one that is measured to
            the end.
        watches_backlog: the load is ended once the server clearly does not keep up with it.
        begins_after_s: the window begins so long after the load, settled or not, and has its
            longest length; None to begin and end by what is seen.
        race: the load is ended once this is lost; for one on the same stretch of arrivals.
    """

    window_s: float = 60.0
    warmup_limit_s: float = 180.0
    precision: Precision | None = None
    slos: tuple[Slo, ...] = ()
    watches_backlog: bool = True
    begins_after_s: float | None = None
    race: Race | None = None

    def on_one_stretch(self, fills_in_s: float = 0.0) -> WindowPlan:
        """Return the plan that measures every configuration on the same stretch of arrivals.

        For open loads. A minute of them asks for 10 % more or fewer tokens than the next one does,
        so that windows which begin where each configuration settles cannot be compared. The server
        fills for `fills_in_s`: a short window does not begin before that.
        """
        begins_after_s = max(_STRETCH_AFTER * self.longest_window_s, fills_in_s)
        return replace(self, begins_after_s=begins_after_s)

    @property
    def shortest_window_s(self) -> float:
        """No window is shorter, unless the load drains."""
        return self.window_s if self.precision is None else self.precision.min_window_s

    @property
    def least_window_s(self) -> float:
        """So long is a window that requests do not run out in, at the least."""
        return self.shortest_window_s if self.begins_after_s is None else self.longest_window_s

    @property
    def latest_start_s(self) -> float:
        """The window begins at the latest so long after the load."""
        return self.warmup_limit_s if self.begins_after_s is None else self.begins_after_s

    @property
    def longest_window_s(self) -> float:
        """No window is longer."""
        return self.window_s if self.precision is None else self.precision.max_window_s


class SteadyWindow:
    """A `SteadyWatch` that also looks at tokens, energy and latencies where they are reported.

    Warm-up: the first requests meet an almost empty server, unlike all later ones. So the warm-up
    lasts at least until 1.5 times as many requests have ended as are under way. Then MSER (White
    1997) decides where the rates have settled: it cuts off the beginning that minimises the error
    of the mean of the rest. The window begins there, which may lie a little in the past. An
    over-saturated open loop never settles, so there is a limit.

    Drain: the window ends with the last request sent, once requests end and no new ones are sent.

    Early end: where the driver reports the requests under way, a load ends early if the server
    clearly does not keep up with it, if it clearly misses an SLO of the plan, or if it has lost the
    plan's race.
    """

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._statistics = WindowStatistics()
        self._load_start_s: float | None = None
        self._under_way = 0
        self._turned_over_s: float | None = None
        self._next_look_s = -math.inf
        self._window_start_s: float | None = None
        self._decided_end_s: float | None = None
        self._narrow_looks = 0
        self._drain = _Drain()
        self._in_flight_source: Callable[[], InFlight] | None = None
        self._backlog = Backlog(0.0)
        self._next_question_s = -math.inf
        self.ended_early: EarlyEnd | None = None
        self.settled = False
        # whether the window is precise enough; None if it was not asked to be
        self.precise: bool | None = None if plan.precision is None else False

    def started(self, now_s: float) -> None:
        """The load begins."""
        self._load_start_s = now_s
        self._backlog = Backlog(now_s)

    def set_in_flight_source(self, in_flight: Callable[[], InFlight]) -> None:
        """Take what tells which requests are under way."""
        self._in_flight_source = in_flight

    def sent(self, now_s: float) -> None:
        """A request was sent."""
        self._under_way += 1
        self._statistics.sent_s.append(now_s)
        self._drain.sent(now_s)
        self._look(now_s)

    def finished(self, now_s: float) -> None:
        """A request ended."""
        self._under_way -= 1
        self._statistics.finished_s.append(now_s)
        if self._drain.finished(now_s, self._under_way):
            self.exhausted(self._drain.last_sent_s)
        self._look(now_s)

    def sampled(self, now_s: float, energy_j: float, tokens: float) -> None:
        """Report the energy used and the output tokens made since some fixed time."""
        self._statistics.sampled_s.append(now_s)
        self._statistics.energy_j.append(energy_j)
        self._statistics.tokens.append(tokens)

    def answered(self, now_s: float, scheduled_s: float, first_token_s: float, tokens: int) -> None:
        """Report the latencies of a request whose last token has come; before `finished`."""
        self._statistics.answered(now_s, scheduled_s, first_token_s, tokens)

    def latest_ms(self, latency: str) -> float | None:
        """Return the median `ttft_ms` or `tpot_ms` of the latest answers, None before the first."""
        return self._statistics.latest_ms(latency)

    def exhausted(self, now_s: float) -> None:
        """No request is sent after `now_s`: what comes is drain, and no part of the window."""
        self._begin_by_limit(now_s)
        if self._decided_end_s is None and not self._is_over(now_s):
            self._decided_end_s = max(now_s, self._window_start_s or now_s)

    def over(self, now_s: float) -> None:
        """The load is over; of a server that says nothing only the clock tells when it began."""
        self._begin_by_limit(now_s)

    def _look(self, now_s: float) -> None:
        if self._load_start_s is None or self._decided_end_s is not None or self._is_over(now_s):
            return
        self._begin_by_limit(now_s)
        if self._in_flight_source is not None and now_s >= self._next_question_s:
            wait_s = max(_LEAST_LOOK_S, _LOOK_SHARE * (now_s - self._load_start_s))
            self._next_question_s = now_s + wait_s
            self._look_for_an_early_end(now_s, self._in_flight_source())
        if now_s < self._next_look_s or self.ended_early is not None:
            return
        if self._plan.begins_after_s is not None:
            return
        if self._window_start_s is None:
            self._look_at_warmup(now_s, self._load_start_s)
        else:
            self._look_at_precision(now_s, self._window_start_s)

    def _is_over(self, now_s: float) -> bool:
        """Say whether the end has passed; the load may go on until it has been sampled."""
        end_s = self.window_end_s
        return end_s is not None and now_s >= end_s

    def _look_later(self, now_s: float, since_s: float) -> None:
        self._next_look_s = now_s + max(_LEAST_LOOK_S, _LOOK_SHARE * (now_s - since_s))

    def _begin_by_limit(self, now_s: float) -> None:
        if self._load_start_s is None or self._window_start_s is not None:
            return
        limit_s = self._load_start_s + self._plan.latest_start_s
        if now_s >= limit_s:
            self._window_start_s = limit_s
            self.settled = len(self._statistics.finished_s) >= _TURNOVERS * self._under_way

    def _look_for_an_early_end(self, now_s: float, under_way: InFlight) -> None:
        slos, statistics, early = self._plan.slos, self._statistics, None
        if self._plan.watches_backlog:
            early = self._backlog.outgrown(slos, as_column(statistics.sent_s), under_way, now_s)
        if early is None and slos and self._window_start_s is not None:
            early = first_missed(slos, statistics, under_way, self._window_start_s, now_s)
        race, load_start_s = self._plan.race, self._load_start_s
        if early is None and race is not None and load_start_s is not None:
            early = race.lost(statistics, load_start_s, now_s)
        if early is not None:
            self.ended_early, self._decided_end_s = early, now_s

    def _look_at_warmup(self, now_s: float, load_start_s: float) -> None:
        ended = len(self._statistics.finished_s)
        least_s = _LEAST_WARMUP_SHARE * self._plan.shortest_window_s
        young = now_s - load_start_s < least_s
        if young or ended == 0 or ended < _TURNOVERS * self._under_way:
            return
        if self._turned_over_s is None:
            self._turned_over_s = now_s
        cut_s = self._statistics.steady_from_s(load_start_s, now_s)
        if cut_s is None:
            self._look_later(now_s, load_start_s)
            return
        self.settled = True
        self._window_start_s = max(self._turned_over_s, cut_s)
        self._look_later(now_s, self._window_start_s)

    def _look_at_precision(self, now_s: float, start_s: float) -> None:
        precision = self._plan.precision
        if precision is None:
            return
        if not precision.min_window_s <= now_s - start_s < precision.max_window_s:
            return
        self._look_later(now_s, start_s)
        narrow = self._statistics.is_precise(precision, start_s, now_s, self._under_way)
        self._narrow_looks = self._narrow_looks + 1 if narrow else 0
        if self._narrow_looks >= _LOOKS_IN_A_ROW:
            self._decided_end_s, self.precise = now_s, True

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the window has to know; of one ended early only why it was."""
        return () if self.settled or self.ended_early is not None else (_UNSETTLED,)

    @property
    def window_start_s(self) -> float | None:
        """When the steady window began, or None while warming up."""
        return self._window_start_s

    @property
    def window_end_s(self) -> float | None:
        """When the load is to end: at the latest after the warm-up limit and one window."""
        if self._decided_end_s is not None:
            return self._decided_end_s
        if self._load_start_s is None:
            return None
        start_s = self._window_start_s
        if start_s is None:
            start_s = self._load_start_s + self._plan.latest_start_s
        return start_s + self._plan.longest_window_s


class _Drain:
    """Sees that requests are no longer replaced.

    Either of two signs alone lies: no request is sent for long while a server stalls, and several
    end in a row by chance. So: a share of the load has ended unreplaced, and after that several of
    the longest gaps between two requests have passed without another.
    """

    def __init__(self) -> None:
        self.last_sent_s = -math.inf
        self._sent = 0
        self._longest_gap_s = 0.0
        self._unreplaced = 0
        self._drained_since_s: float | None = None

    def sent(self, now_s: float) -> None:
        if self._sent:
            self._longest_gap_s = max(self._longest_gap_s, now_s - self.last_sent_s)
        self._sent += 1
        self.last_sent_s = now_s
        self._unreplaced = 0
        self._drained_since_s = None

    def finished(self, now_s: float, under_way: int) -> bool:
        """Count a request that ended; say whether the load drains."""
        self._unreplaced += 1
        if self._sent < _LEAST_SENT or self._unreplaced < 3:
            return False
        if self._drained_since_s is None:
            if self._unreplaced >= _DRAINED_SHARE * (under_way + self._unreplaced):
                self._drained_since_s = now_s
            return False
        return now_s - self._drained_since_s > _DRAINED_GAPS * self._longest_gap_s
