"""Client overhead: the lag of the event loop, and how late requests were sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tuner.records import FloatArray, Load, RequestRecord

# A client later than this moves a p99 by as much: TPOT limits are tens of ms.
MAX_LAG_P99_MS = 5.0
MAX_LATE_P99_MS = 10.0

_PERIOD_S = 0.01
_LEAST_SAMPLES = 20


@dataclass(frozen=True, slots=True, eq=False)
class DriveReport:
    """The records of a load, and whether the client can be believed.

    `lag_p99_ms` is how much later than asked the event loop woke, `late_p99_ms` how much later
    than planned an open load's requests were sent; None where there was too little to tell.
    """

    records: tuple[RequestRecord, ...]
    lag_p99_ms: float | None
    late_p99_ms: float | None


class ClientWatch:
    """Samples the event loop's lag while it is open."""

    def __init__(self) -> None:
        self._woke_s: list[float] = []
        self._lag_s: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ClientWatch:
        """Begin to sample."""
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *_: object) -> None:
        """End."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _sample(self) -> None:
        while True:
            due_s = time.monotonic() + _PERIOD_S
            await asyncio.sleep(_PERIOD_S)
            now_s = time.monotonic()
            self._woke_s.append(now_s)
            self._lag_s.append(now_s - due_s)

    def report(
        self,
        records: tuple[RequestRecord, ...],
        load: Load,
        start_s: float | None,
        end_s: float | None,
    ) -> DriveReport:
        """Judge what was sampled from `start_s` to `end_s`, where known."""
        start_s = -np.inf if start_s is None else start_s
        end_s = np.inf if end_s is None else end_s
        woke_s = np.array(self._woke_s)
        # A sleep that began in the window counts, also if it ended far beyond it.
        inside = (woke_s > start_s) & (woke_s - self._lag_s < end_s + _PERIOD_S)
        lag_p99_ms = _p99_ms(_felt_s(np.array(self._lag_s)[inside]))
        late_p99_ms = None
        if load.request_rate is not None:
            late_p99_ms = _p99_ms(lateness_s(records, start_s, end_s))
        return DriveReport(records, lag_p99_ms, late_p99_ms)


def lateness_s(records: Iterable[RequestRecord], start_s: float, end_s: float) -> FloatArray:
    """Return `sent_s - scheduled_s` of the requests that were planned within [start, end]."""
    return np.array(
        [r.sent_s - r.scheduled_s for r in records if start_s <= r.scheduled_s <= end_s],
        dtype=np.float64,
    )


def _felt_s(lag_s: FloatArray) -> FloatArray:
    """Return what each tick of `_PERIOD_S` would have waited, those a block swallowed as well.

    A loop blocked for 300 ms wakes once, but thirty ticks were due meanwhile: counting wakes
    alone hides the worst blocks (Tene's "coordinated omission").
    """
    swallowed = [np.arange(lag, 0.0, -_PERIOD_S) for lag in lag_s if lag > _PERIOD_S]
    return np.concatenate([lag_s[lag_s <= _PERIOD_S], *swallowed])


def _p99_ms(values_s: FloatArray) -> float | None:
    if values_s.size < _LEAST_SAMPLES:
        return None
    return 1e3 * float(np.percentile(values_s, 99.0))
