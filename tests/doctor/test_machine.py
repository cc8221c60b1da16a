"""Disks, clocks and what a process may use: each judged on a machine that is made up."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tuner.doctor.clocks import ClockFacts, check_clocks, clock_facts
from tuner.doctor.disks import Disk, check_disks, disk_under, judge_disk, kind_of
from tuner.doctor.host import Host
from tuner.doctor.resources import Usage, check_port, check_resources, usage
from tuner.host.finding import Finding, Level

GIB = 2**30
DISK = Disk(Path("/data"), 50 * GIB, "ext4", is_writable=True)
CLOCK = ClockFacts(step_s=1e-6, resolution_s=1e-9, suspended_s=0.0, is_synchronised=True)
USAGE = Usage(
    memory_bytes=64 * GIB,
    available_bytes=60 * GIB,
    cpus=32,
    open_files=65536,
    shared_bytes=32 * GIB,
)


def levels(findings: list[Finding]) -> dict[str, str]:
    return {f.check: f.level.value for f in findings}


@pytest.mark.parametrize(
    ("changes", "level", "says"),
    [
        ({}, "ok", "50.0 GiB free at /data (ext4)"),
        ({"is_writable": False}, "problem", "cannot be written"),
        ({"free_bytes": 2**20}, "problem", "1 MiB free at /data, too little for a run"),
        ({"free_bytes": GIB}, "warning", "too little for a night"),
        ({"kind": "nfs4"}, "warning", "locks"),
        ({"kind": "fuse.sshfs"}, "warning", "locks"),
        ({"kind": "tmpfs"}, "warning", "memory"),
        ({"kind": "overlay"}, "warning", "container"),
        ({"kind": None}, "ok", "free"),
    ],
)
def test_disks(changes: dict[str, object], level: str, says: str) -> None:
    (found,) = judge_disk("store disk", replace(DISK, **changes))
    assert (found.level.value, says in found.message) == (level, True), found
    assert (found.fix is None) == (level == "ok")


def test_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    disk = disk_under(tmp_path / "a" / "b")
    assert disk.path == tmp_path / "a" / "b"
    assert disk.free_bytes > 0 and disk.is_writable
    (tmp_path / "file").write_text("")
    assert not disk_under(tmp_path / "file" / "b").is_writable
    assert not (tmp_path / "a").exists()


def test_the_kind_of_a_disk_is_that_of_the_deepest_mount_made_last(
    host: Callable[..., Host],
) -> None:
    mounts = (
        "rootfs / rootfs rw 0 0\n"
        "/dev/sda1 / ext4 rw,relatime 0 0\n"
        "server:/night\\040runs /night\\040runs nfs4 rw 0 0\n"
    )
    assert kind_of(Path("/night"), host()) is None
    machine = host({"/proc/self/mounts": mounts})
    assert kind_of(Path("/night runs/store"), machine) == "nfs4"
    assert kind_of(Path("/night"), machine) == "ext4"


def test_memory_is_what_the_kernel_says(host: Callable[..., Host]) -> None:
    with pytest.raises(OSError, match="MemTotal"):
        usage(host())
    found = usage(host({"/proc/meminfo": "MemTotal: 2048 kB\nMemAvailable:  1024 kB\n"}))
    assert (found.memory_bytes, found.available_bytes) == (2 * 2**20, 2**20)


def test_folders_that_cannot_be_made_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNER_STATE_DIR", str(tmp_path / "file" / "state"))
    store, state = check_disks(str(tmp_path / "file" / "tuner.db"))
    assert (store.level, state.level) == (Level.PROBLEM, Level.PROBLEM)
    assert "--store" in (store.fix or "") and "TUNER_STATE_DIR" in (state.fix or "")
    assert [f.check for f in check_disks("postgresql://u@h/n")] == ["state disk"]


@pytest.mark.parametrize(
    ("changes", "source", "level", "says"),
    [
        ({}, "tsc", "ok", "kept by NTP"),
        ({"is_synchronised": None}, "kvm-clock", "ok", "not known"),
        ({"is_synchronised": False}, "tsc", "warning", "not kept by NTP"),
        ({"step_s": -3.5}, "tsc", "warning", "-3.50 s"),
        ({"suspended_s": 7200.0}, "tsc", "warning", "120 min"),
        ({}, "hpet", "warning", "hpet"),
        ({"resolution_s": 0.01}, "tsc", "warning", "coarse"),
    ],
)
def test_clocks(
    host: Callable[..., Host], changes: dict[str, object], source: str, level: str, says: str
) -> None:
    name = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    (found,) = check_clocks(host({name: source}), replace(CLOCK, **changes))
    assert (found.level.value, says in found.message) == (level, True), found


def test_the_clocks_of_this_machine_can_be_looked_at() -> None:
    facts = clock_facts()
    assert facts.resolution_s > 0
    assert facts.suspended_s > -1.0


def test_a_machine_that_has_enough(host: Callable[..., Host]) -> None:
    found = levels(check_resources(host({"/sys/fs/cgroup/memory.max": "max"}), USAGE))
    assert found == {"memory": "ok", "cpus": "ok", "open files": "ok"}


@pytest.mark.parametrize(
    ("files", "changes", "check", "says"),
    [
        ({"/sys/fs/cgroup/memory.max": str(2 * GIB)}, {}, "memory", "2.0 GiB"),
        (
            {"/sys/fs/cgroup/memory/memory.limit_in_bytes": str(4 * GIB)},
            {},
            "memory",
            "allows 4.0",
        ),
        ({}, {"available_bytes": GIB}, "memory", "1.0 GiB of 64.0"),
        ({"/sys/fs/cgroup/cpu.max": "150000 100000"}, {}, "cpus", "1.5 CPUs"),
        (
            {
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            {},
            "cpus",
            "2 CPUs",
        ),
        ({}, {"cpus": 2}, "cpus", "2 CPUs"),
        ({}, {"open_files": 1024}, "open files", "1024 files"),
        ({}, {"shared_bytes": 64 * 2**20}, "shared memory", "64 MiB"),
    ],
)
def test_too_little_of_something(
    host: Callable[..., Host],
    files: dict[str, str],
    changes: dict[str, int],
    check: str,
    says: str,
) -> None:
    findings = check_resources(host(files), replace(USAGE, **changes))
    (bad,) = [f for f in findings if f.level is not Level.OK]
    assert (bad.check, says in bad.message) == (check, True), bad
    assert bad.fix


@pytest.mark.parametrize(
    ("limit", "quota"), [("max", "max 100000"), ("9223372036854771712", "nonsense")]
)
def test_no_limit_is_none(host: Callable[..., Host], limit: str, quota: str) -> None:
    machine = host(
        {
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": limit,
            "/sys/fs/cgroup/cpu.max": quota,
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        }
    )
    assert set(levels(check_resources(machine, USAGE)).values()) == {"ok"}


@pytest.mark.parametrize(
    ("governor", "driver", "level"),
    [
        ("performance", "acpi-cpufreq", "ok"),
        ("powersave", "acpi-cpufreq", "warning"),
        ("ondemand", "acpi-cpufreq", "warning"),
        ("powersave", "intel_pstate", "ok"),
        ("powersave", None, "warning"),
    ],
)
def test_governors(
    host: Callable[..., Host], governor: str, driver: str | None, level: str
) -> None:
    folder = "/sys/devices/system/cpu/cpu0/cpufreq"
    files = {f"{folder}/scaling_governor": governor}
    if driver is not None:
        files[f"{folder}/scaling_driver"] = driver
    assert levels(check_resources(host(files), USAGE))["cpu governor"] == level


def test_what_this_machine_gives_can_be_read() -> None:
    found = usage(Host())
    assert 0 < found.available_bytes <= found.memory_bytes
    assert found.cpus >= 1


def test_ports() -> None:
    assert check_port(None).level is Level.OK
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = check_port(port)
    assert (found.level, found.fix) == (Level.PROBLEM, f"ss -ltnp sport = {port}")
