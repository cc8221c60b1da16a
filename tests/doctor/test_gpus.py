"""Each fault of a GPU is a finding with what mends it, and a hung one is not waited for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from helpers.nvml_standin import Standin

from tuner.devices.device_state import DeviceState
from tuner.doctor.gpus import check_apart, check_gpus, judge_gpu, judge_permission
from tuner.doctor.host import Host
from tuner.host.finding import Finding, Level

ROOT = {"/proc/self/status": "Name:\tpython\nCapEff:\t000001ffffffffff"}
# root in a container of Docker: some capabilities, not the one for administration
USER = {"/proc/self/status": "Name:\tpython\nCapEff:\t00000000a80425fb"}
NOBODY: Mapping[str, str] = {}


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    assert len({f.check for f in findings}) == len(findings)
    return {f.check: f for f in findings}


def test_a_sound_gpu(standin: Standin, host: Callable[..., Host]) -> None:
    found = by_check(check_gpus(host(ROOT), NOBODY))
    assert {f.level for f in found.values()} == {Level.OK}, found
    assert "575.57.08" in found["driver"].message
    assert standin.device(0).uuid in found["gpu 0"].message
    assert "700 W, the default; 200 to 700 W" in found["gpu 0 limits"].message
    for setter in ("nvmlDeviceSetPowerManagementLimit", "nvmlDeviceSetGpuLockedClocks"):
        assert standin.device(0).calls(setter) == 0


def test_everything_that_is_wrong_is_said_at_once(
    standin: Standin, host: Callable[..., Host]
) -> None:
    device = standin.device(0)
    device.set(limit_mw=500_000, persistence_mode=0, memory_used_bytes=20 * 2**30)
    device.processes({os.getpid(): 2**30, 4_000_000: 2**30})
    found = by_check(check_gpus(host(USER), NOBODY))
    assert found["gpu permission"].level is Level.WARNING
    assert "sudo" in (found["gpu permission"].fix or "")
    assert "500 W, not the default of 700 W" in found["gpu 0 limits"].message
    assert found["gpu 0 limits"].fix is not None
    assert f"-i {device.uuid} -pl 700" in found["gpu 0 limits"].fix
    assert (found["gpu 0 persistence"].level, found["gpu 0 persistence"].fix) == (
        Level.WARNING,
        "sudo nvidia-smi -i 0 -pm 1",
    )
    use = found["gpu 0 use"]
    assert use.level is Level.PROBLEM
    assert f"pid {os.getpid()} (" in use.message
    assert "pid 4000000 (not seen from here), 20.0 GiB" in use.message


def test_a_gpu_that_hangs_is_a_problem(standin: Standin, host: Callable[..., Host]) -> None:
    standin.device(0).hang("nvmlDeviceGetTotalEnergyConsumption")
    findings = check_gpus(host(ROOT), NOBODY, deadline_s=0.2)
    (bad,) = [f for f in findings if f.level is Level.PROBLEM]
    assert "does not answer" in bad.message and "look at" not in bad.message
    assert "xid" in (bad.fix or "")


def test_a_gpu_that_hangs_does_not_hide_the_others(standin: Standin) -> None:
    findings = check_apart(["the GPU at index 0", standin.device(0).uuid], 5.0)
    hung, *others = findings
    assert (hung.check, hung.level) == ("gpu 0", Level.PROBLEM)
    assert "the GPU at index 0 does not answer" in hung.message
    assert {f.check for f in others} == {"gpu 1", "gpu 1 limits", "gpu 1 profiles", "gpu 1 use"}
    assert {f.level for f in others} == {Level.OK}


STATE = DeviceState(
    uuid="GPU-1",
    name="NVIDIA H100",
    time_s=1.0,
    energy_j=5.0,
    power_w=70.0,
    power_1s_average_w=70.0,
    sm_clock_mhz=1980,
    max_sm_clock_mhz=1980,
    temperature_c=40,
    gpu_utilisation=0.0,
    memory_used_bytes=600 * 2**20,
    memory_total_bytes=80 * 2**30,
    event_reasons=0,
    power_limit_w=700.0,
    default_power_limit_w=700.0,
    min_power_limit_w=200.0,
    max_power_limit_w=700.0,
    enforced_power_limit_w=700.0,
    pids=(),
    mig_enabled=False,
)


@pytest.mark.parametrize(
    ("changes", "check", "level", "says"),
    [
        ({}, "gpu 0 use", Level.OK, "nobody"),
        ({"memory_used_bytes": 9 * 2**30}, "gpu 0 use", Level.WARNING, "9.0 GiB"),
        ({"pids": None}, "gpu 0 use", Level.WARNING, "does not say"),
        ({"min_power_limit_w": None}, "gpu 0 limits", Level.WARNING, "does not tell"),
        ({"energy_j": None}, "gpu 0", Level.PROBLEM, "no energy counter"),
        ({"power_w": None, "power_1s_average_w": None}, "gpu 0", Level.PROBLEM, "no energy"),
    ],
)
def test_what_a_state_says(changes: dict[str, object], check: str, level: Level, says: str) -> None:
    found = by_check(judge_gpu(0, replace(STATE, **changes), persistent=None))[check]
    assert (found.level, says in found.message) == (level, True), found


def test_no_gpu_and_hidden_gpus(
    standin: Standin, host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = by_check(check_gpus(host(ROOT), {"CUDA_VISIBLE_DEVICES": ""}))["gpu"]
    assert (hidden.level, hidden.fix) == (Level.WARNING, "unset CUDA_VISIBLE_DEVICES")
    monkeypatch.delenv("NVML_STANDIN_STATE")
    (none,) = check_gpus(host(ROOT), NOBODY)
    assert (none.check, none.level) == ("gpu", Level.WARNING)
    (half,) = check_gpus(host({"/proc/driver/nvidia/version": "NVRM 570.86"}), NOBODY)
    assert (half.check, half.level) == ("gpu", Level.PROBLEM)


def test_who_may_change_limits(host: Callable[..., Host]) -> None:
    zeusd = {"ZEUSD_SOCK_PATH": "/run/zeusd"}
    assert judge_permission(host(USER), zeusd).level is Level.OK
    assert judge_permission(host({"/proc/self/status": "Name: x"}), NOBODY).level is Level.WARNING
