"""Zeus's daemon, where this user may not set limits itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.fake_zeusd import FakeZeusd
from helpers.nvml_standin import Standin

from tuner.devices.limit_control import Access, LimitControl, PermissionDeniedError
from tuner.devices.open import open_limits
from tuner.errors import OperatorNeededError, PreflightError, UsageError


@pytest.fixture
def zeusd(standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeZeusd]:
    monkeypatch.setenv("ZEUSD_SOCK_PATH", str(tmp_path / "zeusd.sock"))
    for index in (0, 1):
        standin.device(index).deny_setting()
    with FakeZeusd(standin, tmp_path / "zeusd.sock") as running:
        yield running


@pytest.fixture
def limits(zeusd: FakeZeusd) -> Iterator[LimitControl]:
    control = open_limits(Access.SET)
    assert control is not None
    yield control
    control.close()


def test_it_sets_what_we_may_not(standin: Standin, zeusd: FakeZeusd, limits: LimitControl) -> None:
    uuid = standin.device(1).uuid
    limits.set_power_limit(uuid, 450.5)
    limits.lock_sm_clock(uuid, 1203)
    assert (standin.device(1).limit_w, standin.device(1).locked_mhz) == (450.5, 1200)
    assert limits.state(uuid).locked_sm_clock_mhz == 1200
    limits.unlock_sm_clock(uuid)
    assert standin.device(1).locked_mhz is None
    assert standin.device(0).limit_w == 700
    assert zeusd.requests == [
        {
            "path": "/gpu/set_power_limit",
            "gpu_ids": "1",
            "power_limit_mw": "450500",
            "block": "true",
        },
        {
            "path": "/gpu/set_gpu_locked_clocks",
            "gpu_ids": "1",
            "min_clock_mhz": "1200",
            "max_clock_mhz": "1200",
            "block": "true",
        },
        {"path": "/gpu/reset_gpu_locked_clocks", "gpu_ids": "1", "block": "true"},
    ]


def test_it_is_not_asked_where_we_may(
    standin: Standin, zeusd: FakeZeusd, limits: LimitControl
) -> None:
    standin.device(0).mend()
    limits.set_power_limit(standin.device(0).uuid, 400)
    with pytest.raises(UsageError, match="out of range"):
        limits.set_power_limit(standin.device(1).uuid, 100)
    assert zeusd.requests == []


def test_what_it_says_it_did_is_read_back(
    standin: Standin, zeusd: FakeZeusd, limits: LimitControl
) -> None:
    zeusd.does_it = False
    with pytest.raises(OperatorNeededError, match="set to 400 W but reads 700 W"):
        limits.set_power_limit(standin.device(0).uuid, 400)


@pytest.mark.parametrize(("status", "error"), [(403, PermissionDeniedError), (500, PreflightError)])
def test_its_refusal_is_told(
    standin: Standin, zeusd: FakeZeusd, limits: LimitControl, status: int, error: type
) -> None:
    zeusd.status = status
    with pytest.raises(error, match="as told by the test") as caught:
        limits.lock_sm_clock(standin.device(0).uuid, 1200)
    assert type(caught.value) is error
    assert limits.state(standin.device(0).uuid).locked_sm_clock_mhz is None


@pytest.mark.parametrize(("token", "allowed"), [("secret", True), ("wrong", False)])
def test_the_token_is_sent(
    standin: Standin,
    zeusd: FakeZeusd,
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    allowed: bool,
) -> None:
    monkeypatch.setenv("ZEUSD_TOKEN", token)
    control = open_limits(Access.SET)
    assert control is not None
    try:
        if allowed:
            control.set_power_limit(standin.device(0).uuid, 400)
        else:
            with pytest.raises(PermissionDeniedError, match="bad token"):
                control.set_power_limit(standin.device(0).uuid, 400)
    finally:
        control.close()


def test_a_daemon_that_is_not_there(
    standin: Standin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEUSD_SOCK_PATH", str(tmp_path / "nobody.sock"))
    standin.device(0).deny_setting()
    control = open_limits(Access.SET)
    assert control is not None
    with pytest.raises(PreflightError, match="ZEUSD_SOCK_PATH"):
        control.set_power_limit(standin.device(0).uuid, 400)
    control.close()
