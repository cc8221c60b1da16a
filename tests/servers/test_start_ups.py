from __future__ import annotations

from tuner.servers.start_ups import StartUps


def deadline_s(most_s: float, *launches_s: float) -> float:
    start_ups = StartUps(most_s)
    for launch_s in launches_s:
        start_ups.took(launch_s)
    return start_ups.deadline_s


def test_the_first_launch_may_take_what_was_asked_for() -> None:
    assert deadline_s(1800.0) == 1800.0


def test_of_the_next_ones_the_longest_counts() -> None:
    assert deadline_s(1800.0, 60.0) == deadline_s(1800.0, 60.0, 50.0) == 600.0
    assert deadline_s(1800.0, 150.0, 50.0) == 750.0
    assert deadline_s(1800.0, 900.0) == 1800.0


def test_five_times_the_median() -> None:
    assert deadline_s(1800.0, 400.0, 60.0, 50.0) == 300.0


def test_at_least_two_minutes() -> None:
    assert deadline_s(1800.0, 1.0, 1.0, 1.0) == 120.0


def test_never_more_than_was_asked_for() -> None:
    assert deadline_s(100.0, 60.0, 60.0, 60.0) == 100.0
    assert deadline_s(30.0, 1.0, 1.0, 1.0) == 30.0
