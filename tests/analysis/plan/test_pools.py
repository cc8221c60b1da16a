"""Pools: a configuration under several tasks lies between what it is under each of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.replica_kinds import replica_type
from hypothesis import given
from hypothesis import strategies as st

from tuner.analysis.plan.pools import shared_type

CHAT = replica_type("chat/1", 8.0, (300.0, 420.0))
CODE = replace(replica_type("code/2", 5.0, (250.0, 350.0, 500.0)), answer_s=2.0, idle_w=110.0)


@given(share=st.floats(0.0, 1.0), part=st.floats(0.0, 1.0))
def test_it_draws_the_mean_of_what_it_draws_under_each(share: float, part: float) -> None:
    both = shared_type([CHAT, CODE], [share, 1.0 - share])
    assert both.capacity == CHAT.capacity
    at = float(both.power_w(np.array([part * both.capacity]))[0])
    each = [float(k.power_w(np.array([part * k.capacity]))[0]) for k in (CHAT, CODE)]
    assert min(each) - 15.0 <= at <= max(each) + 15.0
    if part >= 0.5:  # between the points of both
        assert at == pytest.approx(share * each[0] + (1.0 - share) * each[1])


def test_one_task_alone_is_what_was_measured() -> None:
    alone = shared_type([CODE], [1.0])
    assert [p.rate for p in alone.points] == pytest.approx([p.rate for p in CODE.points])
    assert [p.power_w for p in alone.points] == pytest.approx([p.power_w for p in CODE.points])
    assert alone.answer_s == pytest.approx(CODE.answer_s)


def test_requests_at_once_are_those_of_both() -> None:
    """Little's law: half of the work is 4 chats/s of 8 s each, half is 2.5 codes/s of 8 s each."""
    both = shared_type([CHAT, CODE], [0.5, 0.5])
    at_once = both.capacity * both.points[-1].metrics["mean_e2el_ms"] / 1000.0
    assert at_once == pytest.approx(4.0 * 8.0 + 2.5 * 8.0)
