"""When the steady window begins and ends, decided while the load runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """How long the steady window is, and when to stop waiting for it to begin.

    Attributes:
        window_s: length of the steady window.
        warmup_limit_s: the window begins at the latest this long after the load, settled or not.
    """

    window_s: float = 60.0
    warmup_limit_s: float = 180.0


class SteadyWindow:
    """A `SteadyWatch`: warm-up ends when as many requests have ended as are under way.

    The requests sent into an empty server meet a load that no later request meets. Once their
    number has been turned over, the mix of prefill and decode is that of the steady state. The rule
    is the same for closed and open loops. An over-saturated open loop never settles, so there is
    a limit.
    """

    def __init__(self, plan: WindowPlan) -> None:
        self._plan = plan
        self._load_start_s: float | None = None
        self._under_way = 0
        self._ended = 0
        self._window_start_s: float | None = None
        self.settled = False

    def started(self, now_s: float) -> None:
        """The load begins."""
        self._load_start_s = now_s

    def sent(self, now_s: float) -> None:
        """A request was sent."""
        self._under_way += 1
        self._look(now_s)

    def finished(self, now_s: float) -> None:
        """A request ended."""
        self._under_way -= 1
        self._ended += 1
        self._look(now_s)

    def _look(self, now_s: float) -> None:
        if self._window_start_s is not None or self._load_start_s is None:
            return
        limit_s = self._load_start_s + self._plan.warmup_limit_s
        if now_s >= limit_s:
            self._window_start_s = limit_s
        elif self._ended > 0 and self._ended >= self._under_way:
            self.settled = True
            self._window_start_s = now_s

    @property
    def window_start_s(self) -> float | None:
        """When the steady window began, or None while warming up."""
        return self._window_start_s

    @property
    def window_end_s(self) -> float | None:
        """When the load is to end: at the latest after the warm-up limit and one window."""
        if self._load_start_s is None:
            return None
        start_s = self._window_start_s
        if start_s is None:
            start_s = self._load_start_s + self._plan.warmup_limit_s
        return start_s + self._plan.window_s
