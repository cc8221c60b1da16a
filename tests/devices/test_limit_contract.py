"""What every control of limits promises: NVML's, Zeus's daemon behind it, and the tests' fake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from helpers.fake_limits import FakeGpu, FakeLimits
from helpers.fake_zeusd import FakeZeusd
from helpers.nvml_standin import Standin

from tuner.devices.leases.lease_book import LeaseBook, leased
from tuner.devices.limit_control import Access, LimitControl
from tuner.devices.open import open_limits
from tuner.errors import TunerError, UsageError

CONTROLS = ["nvml", "zeusd", "fake"]


@pytest.fixture(params=CONTROLS)
def control(
    request: pytest.FixtureRequest,
    standin: Standin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[LimitControl]:
    with ExitStack() as stack:
        if request.param == "fake":
            yield FakeLimits.of(FakeGpu("GPU-1"), FakeGpu("GPU-2"))
            return
        if request.param == "zeusd":
            socket = tmp_path / "zeusd.sock"
            monkeypatch.setenv("ZEUSD_SOCK_PATH", str(socket))
            for index in (0, 1):
                standin.device(index).deny_setting()
            stack.enter_context(FakeZeusd(standin, socket))
        opened = open_limits(Access.SET)
        assert opened is not None
        yield opened
        opened.close()


def test_each_gpu_says_its_limits(control: LimitControl) -> None:
    assert len(set(control.uuids())) == 2
    for uuid in control.uuids():
        state = control.state(uuid)
        assert state.uuid == uuid
        assert state.name
        assert state.power_limit_w and state.default_power_limit_w
        assert state.min_power_limit_w and state.max_power_limit_w
        assert state.min_power_limit_w <= state.power_limit_w <= state.max_power_limit_w
        assert state.locked_sm_clock_mhz is None
        assert control.memory_used_bytes(uuid) >= 0


def test_a_power_limit_is_in_force_once_it_is_set(control: LimitControl) -> None:
    one, other = control.uuids()
    before_w = control.state(other).power_limit_w
    control.set_power_limit(one, 450.0)
    assert control.state(one).power_limit_w == 450.0
    assert control.state(other).power_limit_w == before_w


def test_setting_what_is_set_already_is_harmless(control: LimitControl) -> None:
    uuid = control.uuids()[0]
    limit_w = control.state(uuid).power_limit_w
    assert limit_w is not None
    control.set_power_limit(uuid, limit_w)
    control.unlock_sm_clock(uuid)
    assert control.state(uuid).power_limit_w == limit_w


def test_a_clock_is_locked_and_unlocked(control: LimitControl) -> None:
    uuid = control.uuids()[0]
    control.lock_sm_clock(uuid, 1200)
    assert control.state(uuid).locked_sm_clock_mhz == 1200
    control.unlock_sm_clock(uuid)
    assert control.state(uuid).locked_sm_clock_mhz is None


def test_out_of_range_is_refused_and_nothing_changes(control: LimitControl) -> None:
    uuid = control.uuids()[0]
    before = control.state(uuid)
    assert before.max_power_limit_w is not None
    with pytest.raises(UsageError):
        control.set_power_limit(uuid, before.max_power_limit_w + 1)
    with pytest.raises(UsageError):
        control.lock_sm_clock(uuid, 100_000)
    assert control.state(uuid) == before


def test_a_gpu_that_is_not_here_is_an_error(control: LimitControl) -> None:
    with pytest.raises(TunerError):
        control.state("GPU-of-another-machine")


def test_a_lease_puts_back_what_it_found(control: LimitControl, tmp_path: Path) -> None:
    uuid = control.uuids()[0]
    found = control.state(uuid)
    with leased(control, [uuid], "night", LeaseBook(tmp_path / "leases")) as limits:
        limits.apply(power_limit_w=300.0, sm_clock_mhz=1200)
        assert control.state(uuid).power_limit_w == 300.0
    assert control.state(uuid) == found
