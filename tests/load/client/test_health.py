from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.load.client.client import ClientLimits
from tuner.load.client.health import ServerHealth
from tuner.records import Load, RequestRecord, RequestState

LIMITS = ClientLimits(silence_s=10.0)


class Ended:
    """What the health looks at of an exchange."""

    def __init__(
        self,
        error: str | None = None,
        *,
        refused: bool = False,
        last_token_s: float | None = None,
        sent_s: float = 0.0,
    ) -> None:
        self.error = error
        self.refused = refused
        self.last_token_s = last_token_s
        self.sent_s = sent_s


GOOD = Ended(last_token_s=1.0)
BAD = Ended("HTTP 500")
REFUSED = Ended("connection refused", refused=True)


def after(*exchanges: Ended, concurrency: int = 4) -> ServerHealth:
    health = ServerHealth(Load(concurrency=concurrency), LIMITS)
    for exchange in exchanges:
        health.ended(exchange)
    return health


def test_three_refusals_in_a_row_mean_that_nobody_listens() -> None:
    assert after(REFUSED, REFUSED).gone is None
    assert after(REFUSED, REFUSED, GOOD, REFUSED).gone is None
    gone = after(GOOD, REFUSED, REFUSED, REFUSED).gone
    assert gone == "3 requests failed in a row, the last: connection refused"


@pytest.mark.parametrize(("concurrency", "allowed"), [(1, 10), (4, 12), (64, 192)])
def test_every_client_may_fail_three_times(concurrency: int, allowed: int) -> None:
    assert after(*[BAD] * (allowed - 1), concurrency=concurrency).gone is None
    assert after(*[BAD] * allowed, concurrency=concurrency).gone is not None


def test_an_open_load_allows_thirty_failures() -> None:
    health = ServerHealth(Load(request_rate=2.0), LIMITS)
    for _ in range(29):
        health.ended(BAD)
    assert health.gone is None
    health.ended(BAD)
    assert health.gone is not None


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=20), st.booleans())
def test_a_server_that_sometimes_answers_is_not_gone(runs: list[int], ends_well: bool) -> None:
    """Fewer than ten failures between any two good answers."""
    exchanges = [e for run in runs for e in [*[BAD] * run, GOOD]]
    assert after(*exchanges, *([GOOD] if ends_well else [])).gone is None


def test_silence_is_counted_from_the_last_token_of_any_request() -> None:
    health = after()
    quiet, talking = Ended(sent_s=0.0), Ended(sent_s=0.0, last_token_s=15.0)
    health.check_silence([quiet, talking], 20.0)
    assert health.gone is None
    health.check_silence([quiet, talking], 25.5)
    assert health.gone == "2 requests under way and not one token for 10 s"


def test_silence_without_requests_is_no_fault() -> None:
    health = after(GOOD)
    health.check_silence([], 1000.0)
    health.check_silence([Ended(sent_s=995.0)], 1000.0)
    assert health.gone is None


def test_new_requests_do_not_hide_a_frozen_server() -> None:
    health = after()
    health.check_silence([Ended(sent_s=float(s)) for s in range(12)], 12.0)
    assert health.gone is not None


def test_tokens_of_ended_requests_count() -> None:
    health = after(Ended(last_token_s=95.0))
    health.check_silence([Ended(sent_s=0.0)], 100.0)
    assert health.gone is None


def record(*token_times_s: float) -> RequestRecord:
    times_s = np.array(token_times_s)
    done = RequestState.DONE
    return RequestRecord(0, 8, len(times_s), 0.0, 0.0, times_s, token_times_s[-1], done)


class InFlight(Ended):
    """One that was sent at 0 s and has these tokens so far."""

    def __init__(self, *token_times_s: float) -> None:
        super().__init__(last_token_s=token_times_s[-1] if token_times_s else None)
        self._times_s = token_times_s

    def record(self, now_s: float) -> RequestRecord:
        times_s = np.array(self._times_s)
        return RequestRecord(1, 8, 50, 0.0, self.sent_s, times_s, now_s, RequestState.CUT)


@pytest.mark.parametrize(
    ("under_way", "is_frozen"),
    [
        ([InFlight(1.0, 39.9)], False),
        ([InFlight(1.0, 10.0)], True),  # for 30 s, where 9 s were the longest before
        ([InFlight(1.0, 25.0)], False),  # for 15 s
        ([InFlight(15.0)], False),  # for 25 s, but the first token took 15 s
        ([InFlight(1.0), InFlight(1.0, 35.0)], False),  # one of them is answered
        ([InFlight()], True),  # not one token in 40 s
        ([], False),
    ],
)
def test_a_server_that_was_silent_at_the_end_of_the_load_had_frozen(
    under_way: list[InFlight], is_frozen: bool
) -> None:
    health = after(GOOD)
    health.check_end(under_way, [record(0.5, 1.0)] if under_way != [] else [], 40.0)
    assert (health.gone is not None) == is_frozen
    if is_frozen:
        assert "under way and not one token for the last" in str(health.gone)
