"""Limits of (stand-in) GPUs, through the NVML process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.nvml_standin import Standin
from helpers.nvml_standin.standin import GPU_IS_LOST, NOT_SUPPORTED

from tuner.devices.leases.lease_book import LeaseBook
from tuner.devices.leases.restoring import RestoreAction
from tuner.devices.limit_control import (
    Access,
    LimitControl,
    PermissionDeniedError,
    ReadOnlyDeviceError,
)
from tuner.devices.open import open_limits, opened_limits
from tuner.errors import OperatorNeededError, PreflightError, UsageError
from tuner.host.process import this_owner


@pytest.fixture
def limits(standin: Standin) -> Iterator[LimitControl]:
    control = open_limits(Access.SET)
    assert control is not None
    yield control
    control.close()


def test_no_driver_no_limits() -> None:
    assert open_limits(Access.SET) is None


def test_a_driver_without_gpus_is_none(standin: Standin) -> None:
    standin.set_count(0)
    assert open_limits(Access.SET) is None


def test_state_is_what_the_driver_says(standin: Standin, limits: LimitControl) -> None:
    standin.device(1).set(limit_mw=450_000, enforced_mw=400_000, default_mw=650_000)
    assert limits.uuids() == (standin.device(0).uuid, standin.device(1).uuid)
    state = limits.state(standin.device(1).uuid)
    assert state.uuid == standin.device(1).uuid
    assert state.name == "NVIDIA H100 80GB HBM3"
    assert state.power_limit_w == 450
    assert state.enforced_power_limit_w == 400
    assert state.default_power_limit_w == 650
    assert (state.min_power_limit_w, state.max_power_limit_w) == (200, 700)
    assert state.locked_sm_clock_mhz is None


def test_unsupported_limits_are_none(standin: Standin, limits: LimitControl) -> None:
    device = standin.device(0)
    for what in ("Limit", "DefaultLimit", "LimitConstraints"):
        device.fail(f"nvmlDeviceGetPowerManagement{what}", NOT_SUPPORTED)
    device.fail("nvmlDeviceGetEnforcedPowerLimit", NOT_SUPPORTED)
    state = limits.state(device.uuid)
    assert state.power_limit_w is state.default_power_limit_w is None
    assert state.min_power_limit_w is state.max_power_limit_w is None
    assert state.enforced_power_limit_w is None
    with pytest.raises(PreflightError, match="no power limit to set"):
        limits.set_power_limit(device.uuid, 300)


def test_a_limit_is_set_on_that_gpu_alone_and_outlives_the_control(
    standin: Standin, limits: LimitControl
) -> None:
    limits.set_power_limit(standin.device(1).uuid, 333.5)
    limits.close()
    assert standin.device(0).limit_w == 700
    assert standin.device(1).limit_w == 333.5


@pytest.mark.parametrize("watts", [199, 701])
def test_out_of_range_names_the_range(standin: Standin, limits: LimitControl, watts: float) -> None:
    with pytest.raises(UsageError, match="200 to 700 W"):
        limits.set_power_limit(standin.device(0).uuid, watts)
    assert standin.device(0).calls("nvmlDeviceSetPowerManagementLimit") == 0


def test_a_limit_that_somebody_reverts_is_noticed(standin: Standin, limits: LimitControl) -> None:
    standin.device(0).set(revert_after_s=1e-6)
    with pytest.raises(OperatorNeededError, match="set to 400 W but reads 700 W"):
        limits.set_power_limit(standin.device(0).uuid, 400)


def test_another_cap_below_does_not_hide_a_reverted_limit(
    standin: Standin, limits: LimitControl
) -> None:
    standin.device(0).set(enforced_mw=300_000)
    limits.set_power_limit(standin.device(0).uuid, 400)
    assert limits.state(standin.device(0).uuid).enforced_power_limit_w == 300
    standin.device(0).set(revert_after_s=1e-6)
    with pytest.raises(OperatorNeededError, match="reads 700 W"):
        limits.set_power_limit(standin.device(0).uuid, 400)


def test_a_limit_may_take_a_moment_to_read_back(standin: Standin, limits: LimitControl) -> None:
    device = standin.device(0)
    device.set(revert_after_s=1e-6)
    late = threading.Timer(0.3, lambda: device.set(limit_mw=400_000))
    late.start()
    limits.set_power_limit(device.uuid, 400)
    late.join()
    assert device.limit_w == 400


def test_without_permission_nothing_changes(standin: Standin, limits: LimitControl) -> None:
    device = standin.device(0)
    device.deny_setting()
    for change in (
        lambda: limits.set_power_limit(device.uuid, 400),
        lambda: limits.lock_sm_clock(device.uuid, 1200),
        lambda: limits.unlock_sm_clock(device.uuid),
    ):
        with pytest.raises(PermissionDeniedError, match="root"):
            change()
    assert limits.state(device.uuid).locked_sm_clock_mhz is None
    assert (device.limit_w, device.locked_mhz) == (700, None)


def test_the_nearest_supported_clock_is_locked_and_unlocked(
    standin: Standin, limits: LimitControl
) -> None:
    device = standin.device(0)
    limits.lock_sm_clock(device.uuid, 1207)  # steps of 15 MHz from 210
    assert device.locked_mhz == 1200
    assert device.get("lock_min_mhz") == 1200
    assert limits.state(device.uuid).locked_sm_clock_mhz == 1200
    limits.unlock_sm_clock(device.uuid)
    assert device.locked_mhz is None
    assert limits.state(device.uuid).locked_sm_clock_mhz is None


@pytest.mark.parametrize("mhz", [209, 1981])
def test_a_clock_out_of_range_names_the_range(
    standin: Standin, limits: LimitControl, mhz: int
) -> None:
    with pytest.raises(UsageError, match="210 to 1980 MHz"):
        limits.lock_sm_clock(standin.device(0).uuid, mhz)


def test_a_gpu_without_locked_clocks_says_so(standin: Standin, limits: LimitControl) -> None:
    standin.device(0).fail("nvmlDeviceGetSupportedMemoryClocks", NOT_SUPPORTED)
    standin.device(0).fail("nvmlDeviceGetSupportedGraphicsClocks", NOT_SUPPORTED)
    with pytest.raises(PreflightError, match="no SM clocks to lock"):
        limits.lock_sm_clock(standin.device(0).uuid, 1200)


def test_memory_and_unknown_gpus(standin: Standin, limits: LimitControl) -> None:
    standin.device(1).set(memory_used_bytes=17 * 2**30)
    assert limits.memory_used_bytes(standin.device(1).uuid) == 17 * 2**30
    with pytest.raises(UsageError, match="no GPU GPU-nobody"):
        limits.state("GPU-nobody")


def test_a_setter_that_hangs_needs_an_operator_in_time(standin: Standin) -> None:
    control = open_limits(Access.SET, deadline_s=0.5)
    assert control is not None
    standin.device(0).hang("nvmlDeviceSetPowerManagementLimit")
    with pytest.raises(OperatorNeededError, match=r"does not answer NVML within 0\.5 s"):
        control.set_power_limit(standin.device(0).uuid, 400)
    with pytest.raises(OperatorNeededError):
        control.state(standin.device(1).uuid)
    control.close()


def settings(standin: Standin) -> int:
    """How often the driver was asked to set anything."""
    names = ("SetPowerManagementLimit", "SetGpuLockedClocks", "ResetGpuLockedClocks")
    return sum(standin.device(i).calls(f"nvmlDevice{name}") for i in (0, 1) for name in names)


def test_opened_to_read_alone_every_setter_is_refused_even_to_root(
    standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEUSD_SOCK_PATH", "/nowhere")  # nor is a daemon asked to do it instead
    uuid = standin.device(0).uuid
    with opened_limits(Access.READ) as control:
        assert control is not None
        assert control.state(uuid).power_limit_w == 700
        for change in (
            lambda: control.set_power_limit(uuid, 400),
            lambda: control.lock_sm_clock(uuid, 1200),
            lambda: control.unlock_sm_clock(uuid),
        ):
            with pytest.raises(ReadOnlyDeviceError, match="opened read-only"):
                change()
    assert settings(standin) == 0
    with opened_limits(Access.SET) as control:
        assert control is not None
        control.unlock_sm_clock(uuid)
    assert settings(standin) == 1  # what is counted above does count


def test_one_gpu_is_opened_though_another_one_is_lost(standin: Standin) -> None:
    standin.fail("nvmlDeviceGetHandleByIndex", GPU_IS_LOST)  # as the driver answers for a lost one
    with pytest.raises(OperatorNeededError, match="GPU"):
        open_limits(Access.READ)
    other = standin.device(1)
    with opened_limits(Access.SET, other.uuid) as control:
        assert control is not None
        assert control.uuids() == (other.uuid,)
        control.set_power_limit(other.uuid, 300)
    assert other.limit_w == 300
    with opened_limits(Access.READ, "GPU-nobody") as control:
        assert control is None


@pytest.mark.parametrize("function", ["nvmlDeviceGetName", "nvmlDeviceSetPowerManagementLimit"])
def test_a_gpu_that_hangs_does_not_keep_the_others_from_being_restored(
    standin: Standin, tmp_path: Path, function: str
) -> None:
    book = LeaseBook(tmp_path / "leases")
    dead = replace(this_owner("crashed"), start_ticks=1)
    with opened_limits(Access.SET) as control:
        assert control is not None
        for index in (0, 1):
            lease = book.take(control, standin.device(index).uuid, dead)
            book.set_limits(control, lease, power_limit_w=300, sm_clock_mhz=1200)
    standin.device(0).hang(function)

    @contextmanager
    def opened(uuid: str) -> Iterator[LimitControl | None]:
        found = open_limits(Access.SET, uuid, deadline_s=0.25)
        yield found
        if found is not None:
            found.close()

    outcomes = {outcome.gpu: outcome for outcome in book.restore_all(opened)}
    hung, other = standin.device(0), standin.device(1)
    assert outcomes[hung.uuid].action is RestoreAction.FAILED
    assert "does not answer NVML" in outcomes[hung.uuid].message
    assert "tuner gpu restore" in outcomes[hung.uuid].message
    assert outcomes[other.uuid].action is RestoreAction.RESTORED
    assert (other.limit_w, other.locked_mhz) == (700, None)
    assert hung.locked_mhz == 1200
    hung.mend()
    assert [o.action for o in book.restore_all(opened)] == [RestoreAction.RESTORED]
    assert (hung.limit_w, hung.locked_mhz) == (700, None)
    assert book.entries() == ()


def test_a_limit_that_cannot_be_read_is_not_set(standin: Standin, tmp_path: Path) -> None:
    device = standin.device(0)
    device.fail("nvmlDeviceGetPowerManagementLimit", NOT_SUPPORTED)
    book = LeaseBook(tmp_path / "leases")
    with opened_limits(Access.SET) as control:
        assert control is not None
        lease = book.take(control, device.uuid, this_owner("night"))
        with pytest.raises(PreflightError, match="could not be put back"):
            book.set_limits(control, lease, power_limit_w=300, sm_clock_mhz=None)
    assert device.calls("nvmlDeviceSetPowerManagementLimit") == 0
