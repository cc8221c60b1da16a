"""Alarms ring once, at their time, and not when they were dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

import pytest

from tuner.load.client.alarms import Alarms

STEP_S = 0.03


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
async def test_alarms_ring_in_the_order_of_their_times(
    order: tuple[int, ...], eventually: Callable
) -> None:
    alarms, rung = Alarms(), []
    began_s = time.monotonic()
    for steps in order:
        ring = partial(lambda n: rung.append((n, time.monotonic() - began_s)), steps)
        alarms.set(ring, began_s + steps * STEP_S)
    await eventually(lambda: len(rung) == 3)
    assert [steps for steps, _ in rung] == [1, 2, 3]
    assert all(after_s >= steps * STEP_S for steps, after_s in rung)


async def test_an_alarm_rings_once_and_only_at_its_last_time() -> None:
    alarms, rung = Alarms(), []

    def ring() -> None:
        rung.append(time.monotonic())

    began_s = time.monotonic()
    alarms.set(ring, began_s + STEP_S)
    alarms.set(ring, began_s + 3 * STEP_S)
    await asyncio.sleep(6 * STEP_S)
    assert len(rung) == 1
    assert rung[0] >= began_s + 3 * STEP_S


async def test_a_dropped_alarm_does_not_ring() -> None:
    alarms, rung = Alarms(), []
    ring, other = partial(rung.append, "dropped"), partial(rung.append, "other")
    alarms.set(ring, time.monotonic() + STEP_S)
    alarms.set(other, time.monotonic() + 2 * STEP_S)
    alarms.drop(ring)
    alarms.drop(ring)  # nothing happens
    await asyncio.sleep(5 * STEP_S)
    assert rung == ["other"]


async def test_an_alarm_may_set_the_next_one(eventually: Callable) -> None:
    alarms, rung = Alarms(), []

    def ring() -> None:
        rung.append(time.monotonic())
        if len(rung) < 3:
            alarms.set(ring, time.monotonic() + STEP_S)

    alarms.set(ring, time.monotonic() - 1.0)
    await eventually(lambda: len(rung) == 3)
    assert rung[2] - rung[0] >= 2 * STEP_S


async def test_nothing_rings_after_the_end() -> None:
    alarms, rung = Alarms(), []
    alarms.set(partial(rung.append, 1), time.monotonic() + STEP_S)
    alarms.close()
    await asyncio.sleep(3 * STEP_S)
    assert rung == []
