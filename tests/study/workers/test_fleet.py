"""A fleet keeps its workers busy, in the order of their virtual times, and counts time once."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from helpers.scripted import ScriptedEvaluator, measurement
from helpers.testbed import OWNER
from hypothesis import given
from hypothesis import strategies as st

from tuner.evaluation.evaluator import BenchLostError, Evaluation
from tuner.records import Timing
from tuner.study.workers import fleet as fleet_module
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.worker import Worker


def fleet_of(count: int) -> Fleet:
    return Fleet([Worker(ScriptedEvaluator(), OWNER) for _ in range(count)])


def took(seconds: float) -> Evaluation:
    return Evaluation(measurement(x=1.0), None, (), Timing(seconds), is_virtual=True)


def work_through(count: int, durations: list[float]) -> tuple[list[float], float]:
    """Return when each evaluation ended, by the sum of what passed, and how long all took."""
    fleet = fleet_of(count)
    left, ends, now_s = list(durations), [], 0.0

    async def job(worker: Worker) -> bool:
        nonlocal now_s
        if not left:
            return False
        passed_s = await fleet.passed_s(took(left.pop(0)), 0.0)
        now_s += passed_s
        ends.append(now_s)
        return True

    asyncio.run(asyncio.wait_for(fleet.work_off(job), 10.0))
    return ends, now_s


def scheduled(count: int, durations: list[float]) -> list[float]:
    """Return the same by a list of when each worker is free."""
    free, ends = [0.0] * count, []
    for duration in durations:
        worker = min(range(count), key=lambda k: free[k])
        free[worker] += duration
        ends.append(free[worker])
    return sorted(ends)


@given(
    st.integers(1, 5),
    st.lists(st.integers(1, 50).map(float), min_size=1, max_size=30),
)
def test_evaluations_end_as_on_real_cards(count: int, durations: list[float]) -> None:
    ends, _ = work_through(count, durations)
    assert ends == pytest.approx(scheduled(count, durations))


def test_one_worker_spends_exactly_what_it_takes() -> None:
    durations = [0.1, 0.2, 0.3, 0.7]
    fleet, passed = fleet_of(1), []

    async def job(_: Worker) -> bool:
        if len(passed) == len(durations):
            return False
        passed.append(await fleet.passed_s(took(durations[len(passed)]), 0.0))
        return True

    asyncio.run(fleet.work_off(job))
    assert passed == durations


def test_an_idle_worker_is_asked_again() -> None:
    """A point that has to be tried again comes up when its first evaluation ends."""
    fleet, waiting, done = fleet_of(3), [1], []

    async def job(worker: Worker) -> bool:
        if not waiting:
            return False
        number = waiting.pop()
        await fleet.passed_s(took(1.0), 0.0)
        done.append(number)
        if number < 4:
            waiting.extend([number + 1, number + 1])
        return True

    asyncio.run(asyncio.wait_for(fleet.work_off(job), 10.0))
    assert sorted(done) == [1, *[2] * 2, *[3] * 4, *[4] * 8]


def test_a_failure_ends_the_others() -> None:
    fleet, cancelled = fleet_of(3), []

    async def job(worker: Worker) -> bool:
        if worker is fleet.first:
            await asyncio.sleep(0.01)
            raise RuntimeError("no")
        try:
            await asyncio.sleep(60.0)
        except asyncio.CancelledError:
            cancelled.append(worker)
            raise
        return True

    with pytest.raises(RuntimeError, match="no"):
        asyncio.run(fleet.work_off(job))
    assert len(cancelled) == 2


def test_a_cancelled_fleet_has_stopped_its_workers() -> None:
    fleet, stopped = fleet_of(2), []

    async def job(worker: Worker) -> bool:
        try:
            await asyncio.sleep(60.0)
        finally:
            await asyncio.sleep(0.01)
            stopped.append(worker)
        return True

    async def interrupted() -> None:
        task = asyncio.create_task(fleet.work_off(job))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(stopped) == 2

    asyncio.run(interrupted())


def test_real_time_that_overlaps_counts_once() -> None:
    fleet, left = fleet_of(2), [1, 2, 3, 4]
    evaluation = Evaluation(measurement(x=1.0), None, (), Timing(0.05))
    passed = []

    async def job(worker: Worker) -> bool:
        if not left:
            return False
        left.pop()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await asyncio.sleep(0.05)
        passed.append(await fleet.passed_s(evaluation, began_s))
        return True

    async def timed() -> float:
        began_s = asyncio.get_running_loop().time()
        await fleet.work_off(job)
        return asyncio.get_running_loop().time() - began_s

    wall_s = asyncio.run(timed())
    assert len(passed) == 4
    assert 0.09 <= sum(passed) <= wall_s + 0.001


async def test_a_wait_beside_an_evaluation_counts_once() -> None:
    fleet = fleet_of(2)
    evaluation = Evaluation(measurement(x=1.0), None, (), Timing(0.2))
    now_s = asyncio.get_running_loop().time
    began_s = now_s()
    await asyncio.sleep(0.1)
    counted_s = fleet.counted_s(0.1)  # one worker has waited, the other one measures
    assert counted_s == pytest.approx(0.1)
    await asyncio.sleep(0.1)
    counted_s += await fleet.passed_s(evaluation, began_s)
    counted_s += fleet.counted_s(0.1)
    assert 0.19 <= counted_s <= now_s() - began_s + 0.01


def test_a_worker_that_was_lost_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "BACK_OFF_S", 0.0)
    monkeypatch.setattr(fleet_module, "REJOIN_S", 0.001)

    class Away(ScriptedEvaluator):
        """Its node is away until it was looked for three times."""

        looks = 0

        async def prepare(self) -> Any:
            self.looks += 1
            if self.looks < 3:
                raise BenchLostError("no route to host")
            return await super().prepare()

    away, notes = Away(), list[str]()
    lost = Worker(away, replace(OWNER, card="b"))
    fleet = Fleet([Worker(ScriptedEvaluator(), replace(OWNER, card="a")), lost], notes.append)
    done: list[str | None] = []

    async def job(worker: Worker) -> bool:
        if worker is lost and away.looks < 3:
            raise BenchLostError("killed")
        if done.count("b") == 5:
            return False
        await asyncio.sleep(0.001)
        done.append(worker.card)
        return True

    asyncio.run(asyncio.wait_for(fleet.work_off(job), 20.0))
    assert done.count("b") == 5 and len(fleet.workers) == 2
    assert notes[-1] == "card b is back" and "until it is back" in notes[-2]


def test_the_others_do_not_wait_for_a_lost_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "BACK_OFF_S", 0.0)

    lost = Worker(ScriptedEvaluator(), replace(OWNER, card="b"))
    fleet, left = Fleet([Worker(ScriptedEvaluator(), OWNER), lost]), [1, 2, 3]

    async def job(worker: Worker) -> bool:
        if worker is lost:
            raise BenchLostError("killed")
        return bool(left) and bool(left.pop())

    asyncio.run(asyncio.wait_for(fleet.work_off(job), 20.0))
    assert not left and lost not in fleet.workers


def test_a_worker_joins_during_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "REJOIN_S", 0.001)
    new = Worker(ScriptedEvaluator(), replace(OWNER, card="b"))
    coming, notes, done = [[], [new], []], list[str](), list[str | None]()

    async def newcomers() -> list[Worker]:
        return coming.pop(0) if coming else []

    first = Worker(ScriptedEvaluator(), replace(OWNER, card="a"))
    fleet = Fleet([first], notes.append, newcomers)

    async def job(worker: Worker) -> bool:
        if done.count("b") == 5:
            return False
        await asyncio.sleep(0.001)
        done.append(worker.card)
        return True

    async def search_and_confirm() -> None:
        await asyncio.wait_for(fleet.work_off(job), 20.0)
        assert fleet.workers == [first, new] and notes == ["card b joins"]
        done.clear()
        await asyncio.wait_for(fleet.work_off(job), 20.0)
        assert done.count("b") == 5

    asyncio.run(search_and_confirm())


def test_a_newcomer_that_fails_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "REJOIN_S", 0.001)
    new = Worker(ScriptedEvaluator(), OWNER)

    async def newcomers() -> list[Worker]:
        return [new]

    fleet = Fleet([Worker(ScriptedEvaluator(), OWNER)], newcomers=newcomers)

    async def job(worker: Worker) -> bool:
        if worker is new:
            raise RuntimeError("no")
        await asyncio.sleep(0.001)
        return True

    with pytest.raises(RuntimeError, match="no"):
        asyncio.run(asyncio.wait_for(fleet.work_off(job), 20.0))


def test_a_lost_card_that_joins_again_is_waited_for_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its node was started again, and Ray gave its GPU to a newcomer."""
    monkeypatch.setattr(fleet_module, "BACK_OFF_S", 0.0)
    monkeypatch.setattr(fleet_module, "REJOIN_S", 0.001)

    class Away(ScriptedEvaluator):
        async def prepare(self) -> Any:
            raise BenchLostError("no place")

    first = Worker(ScriptedEvaluator(), replace(OWNER, card="a"))
    lost = Worker(Away(), replace(OWNER, card="b"))
    again = Worker(ScriptedEvaluator(), replace(OWNER, card="b"))
    done: list[Worker] = []

    async def newcomers() -> list[Worker]:
        return [] if again in fleet.workers or lost in fleet.workers else [again]

    fleet = Fleet([first, lost], newcomers=newcomers)

    async def job(worker: Worker) -> bool:
        if worker is lost:
            raise BenchLostError("killed")
        if done.count(again) == 3:
            return False
        await asyncio.sleep(0.001)
        done.append(worker)
        return True

    asyncio.run(asyncio.wait_for(fleet.work_off(job), 20.0))
    assert fleet.workers == [first, again] and done.count(again) == 3


def test_the_end_does_not_wait_for_newcomers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "REJOIN_S", 0.001)
    stopped = []

    async def newcomers() -> list[Worker]:
        try:
            await asyncio.sleep(60.0)
        finally:
            stopped.append(True)
        return []

    fleet, left = Fleet([Worker(ScriptedEvaluator(), OWNER)], newcomers=newcomers), [1, 2, 3]

    async def job(_: Worker) -> bool:
        await asyncio.sleep(0.01)
        return bool(left) and bool(left.pop())

    asyncio.run(asyncio.wait_for(fleet.work_off(job), 20.0))
    assert stopped == [True]
