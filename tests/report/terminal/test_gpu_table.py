"""What was found, what is set and what is the default are told apart, as a table and as JSON."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.fake_limits import FakeGpu, FakeLimits
from rich.console import Console

from tuner.devices.leases.lease_book import LeaseBook
from tuner.devices.leases.restoring import RestoreAction, RestoreOutcome
from tuner.host.process import this_owner
from tuner.report.terminal.gpu_table import (
    is_restored,
    machine_status,
    restore_json,
    show_restore,
    show_status,
    status_json,
)

ONE, TWO = "GPU-1111-aa", "GPU-2222-bb"


@pytest.fixture
def control() -> FakeLimits:
    return FakeLimits.of(FakeGpu(ONE, limit_w=610.0), FakeGpu(TWO))


@pytest.fixture
def book(tmp_path: Path, control: FakeLimits) -> LeaseBook:
    """GPU one is leased and set, by a run that is dead."""
    found = LeaseBook(tmp_path)
    lease = found.take(control, ONE, replace(this_owner("night [1]"), start_ticks=1))
    found.set_limits(control, lease, power_limit_w=350.0, sm_clock_mhz=1200)
    return found


def shown(show: object, *arguments: object) -> str:
    console = Console(file=io.StringIO(), width=140, color_system=None)
    show(console, *arguments)
    return console.file.getvalue()


def test_the_status_as_json(control: FakeLimits, book: LeaseBook) -> None:
    found = json.loads(json.dumps(status_json(machine_status(control, book))))
    one, two = found["gpus"]
    assert found["unreadable"] == []
    assert (one["uuid"], one["is_here"]) == (ONE, True)
    assert (one["power_limit_w"], one["default_power_limit_w"]) == (350.0, 700.0)
    assert (one["found_power_limit_w"], one["set_power_limit_w"]) == (610.0, 350.0)
    assert (one["found_sm_clock_mhz"], one["set_sm_clock_mhz"]) == (None, 1200)
    assert one["owner_state"] == "dead"
    assert "night [1]" in one["owner"]
    assert (two["power_limit_w"], two["found_power_limit_w"]) == (600.0, None)
    assert (two["owner"], two["owner_state"], two["leased_at"]) == (None, None, None)


def test_the_status_as_a_table(control: FakeLimits, book: LeaseBook) -> None:
    text = shown(show_status, machine_status(control, book))
    first, second = text.index(ONE), text.index(TWO)
    for value in ("350 W", "610 W", "1200 MHz", "700 W", "200..700 W", "night [1]), dead"):
        assert value in text[:second]
    assert first < second
    assert "none" in text[first:second]  # beside the name, above the UUID
    assert "tuner gpu restore" in text


def test_a_living_owner_needs_no_mending(tmp_path: Path, control: FakeLimits) -> None:
    book = LeaseBook(tmp_path)
    book.take(control, ONE, this_owner("night"))
    text = shown(show_status, machine_status(control, book))
    assert "living" in text
    assert "tuner gpu restore" not in text


def test_a_leased_gpu_that_is_not_seen_and_a_torn_file(book: LeaseBook) -> None:
    (book.folder / "GPU-3.json").write_text("{")
    status = machine_status(None, book)
    (gpu,) = status.gpus
    assert (gpu.uuid, gpu.is_here, gpu.power_limit_w) == (ONE, False, None)
    text = shown(show_status, status)
    assert "not seen here" in text
    assert "GPU-3.json is no readable lease" in text.replace("\n", " ")
    (unreadable,) = status_json(status)["unreadable"]
    assert unreadable["path"].endswith("GPU-3.json")
    assert unreadable["problem"]


def test_nothing_here(tmp_path: Path) -> None:
    status = machine_status(None, LeaseBook(tmp_path / "none"))
    assert "no NVIDIA GPU" in shown(show_status, status)
    assert status_json(status) == {"gpus": [], "unreadable": []}
    assert list(tmp_path.iterdir()) == []


def test_what_was_put_back(control: FakeLimits, book: LeaseBook) -> None:
    outcomes = book.restore_all(control.opened)
    assert is_restored(outcomes)
    (row,) = restore_json(outcomes)
    assert (row["gpu"], row["action"]) == (ONE, "restored")
    text = shown(show_restore, outcomes)
    assert text.startswith("restored: ")
    assert "610 W" in text
    assert "nothing to put back" in shown(show_restore, book.restore_all(control.opened))


@pytest.mark.parametrize(
    ("action", "fine"),
    [
        (RestoreAction.RESTORED, True),
        (RestoreAction.REMOVED, True),
        (RestoreAction.LEFT_ALONE, True),
        (RestoreAction.UNREADABLE, False),
        (RestoreAction.FAILED, False),
    ],
)
def test_what_needs_an_operator(action: RestoreAction, fine: bool) -> None:
    outcome = RestoreOutcome(ONE, action, "why [x]")
    assert is_restored([outcome]) is fine
    assert "why [x]" in shown(show_restore, [outcome])
