"""Timers, CronJobs and KEDA's schedule bring about the fleet that the plan has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.replica_kinds import replica_type

from tuner.analysis.plan.fleet import Move
from tuner.analysis.plan.operating_plan import OperatingPlan, PlanOptions, make_plan
from tuner.errors import UsageError
from tuner.load.day.rate_curve import RateCurve
from tuner.report.plan.kubernetes import scaled_objects, write_kubernetes
from tuner.report.plan.steps import steps
from tuner.report.plan.timers import cron_text, systemd_units


def day_plan(length_s: float = 86_400.0, **options: float) -> OperatingPlan:
    count = round(length_s / 1800.0)
    hours = np.arange(count) * 0.5
    rates = 12.0 - 10.0 * np.cos(2.0 * np.pi * (hours - 3.0) / 24.0)
    curve = RateCurve(1800.0, rates, "made up")
    types = [replica_type("s/1", sleep_w=80.0), replica_type("s/2", 12.0, (500.0, 700.0))]
    return make_plan(types, curve, PlanOptions(gpus=4, step_s=1800.0, **options))  # type: ignore[arg-type]


def test_the_steps_of_a_day_lead_from_fleet_to_fleet() -> None:
    plan = day_plan()
    assert plan.actions
    running = {(k, n) for k in range(2) for n in range(1, 1 + int(plan.running[-1, k]))}
    asleep = {
        (k, int(plan.running[-1, k]) + n)
        for k in range(2)
        for n in range(1, 1 + int(plan.asleep[-1, k]))
    }
    by_interval = iter(steps(plan))
    for interval in range(plan.demand.intervals):
        for action in [a for a in plan.actions if a.interval == interval]:
            for _ in range(action.count):
                step = next(by_interval)
                one = (step.kind, step.replica)
                assert (one in running) == (step.move in (Move.SLEEP, Move.STOP))
                assert (one in asleep) == (step.move in (Move.WAKE, Move.DROP))
                running.discard(one)
                asleep.discard(one)
                if step.move in (Move.START, Move.WAKE):
                    running.add(one)
                if step.move is Move.SLEEP:
                    asleep.add(one)
        for kind in range(2):
            assert len([r for r in running if r[0] == kind]) == plan.running[interval, kind]
            assert len([r for r in asleep if r[0] == kind]) == plan.asleep[interval, kind]
    assert next(by_interval, None) is None


def test_a_start_is_begun_so_much_earlier_as_it_takes() -> None:
    plan = day_plan()
    starts = [a for a in plan.actions if a.move is Move.START]
    assert starts
    assert all(a.at_s == a.interval * 1800.0 - 60.0 for a in starts)
    hour, minute = divmod(int(starts[0].at_s % 86_400.0) // 60, 60)
    assert f"\n{minute} {hour} * * * root systemctl start " in cron_text([plan])


def test_units_have_a_timer_and_a_service_for_each_moment() -> None:
    plan = day_plan()
    units = systemd_units([plan])
    assert {name.partition(".")[2] for name in units} == {"timer", "service"}
    commands = "".join(text for name, text in units.items() if name.endswith(".service"))
    assert commands.count("ExecStart=") == sum(a.count for a in plan.actions)


def test_keda_has_the_replicas_of_each_time(tmp_path: Path) -> None:
    plan = day_plan()
    for scaled in scaled_objects(plan):
        place = next(
            p for p, t in enumerate(plan.types) if scaled["metadata"]["name"].endswith(t.name[-1])
        )
        counts = plan.running[:, place] + plan.asleep[:, place]
        spec = scaled["spec"]
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (counts.min(), counts.max())
        for interval, count in enumerate(counts):
            minutes = interval * 30
            wanted = [spec["minReplicaCount"]]
            for trigger in spec["triggers"]:
                start, end = (minute_of(trigger["metadata"][edge]) for edge in ("start", "end"))
                inside = (
                    start <= minutes < end if start < end else minutes >= start or minutes < end
                )
                wanted += [int(trigger["metadata"]["desiredReplicas"])] if inside else []
            assert max(wanted) == count
    objects = list(yaml.safe_load_all(write_kubernetes([plan], tmp_path / "k.yaml").read_text()))
    assert [o["kind"] for o in objects[:3]] == ["ServiceAccount", "Role", "RoleBinding"]
    assert {o["kind"] for o in objects[3:]} == {"CronJob"}


def minute_of(schedule: str) -> int:
    minute, hour, *_ = schedule.split()
    return int(hour) * 60 + int(minute)


def test_a_plan_of_two_days_has_no_timers() -> None:
    plan = day_plan(2 * 86_400.0)
    with pytest.raises(UsageError, match="daily or weekly"):
        list(steps(plan))


def test_a_week_names_its_days() -> None:
    plan = day_plan(7 * 86_400.0)
    assert all(line.split()[4] in "0123456" for line in cron_text([plan]).splitlines()[1:])
    assert replace(plan).curve.length_s == 7 * 86_400.0
