"""Resource checks: memory, CPUs, open files, shared memory, CPU governor and port."""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass

from tuner.doctor.host import Host
from tuner.errors import PreflightError
from tuner.host.finding import Finding, ok, problem, warning
from tuner.servers.launch import usable_port

_GIB = 2**30
_OPEN_FILES = 4096  # a closed loop has a connection for each request in flight
_SERVER_BYTES = 8 * _GIB  # vLLM and its workers, before any model is held in memory
_SHARED_BYTES = 1 * _GIB  # what workers of several GPUs pass to each other
_CPUS = 4.0  # the engine, its API server and the client
_UNLIMITED_V1 = 2**62  # cgroup v1 writes the highest page-aligned number
_GOVERNORS = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"
_DRIVER = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"
_DYNAMIC_DRIVERS = ("intel_pstate", "amd-pstate-epp")  # their powersave still follows the load


@dataclass(frozen=True, slots=True)
class Usage:
    """Limits of this process and the machine; `open_files` None is no limit."""

    memory_bytes: int
    available_bytes: int
    cpus: int
    open_files: int | None
    shared_bytes: int | None


def usage(host: Host) -> Usage:
    """Read them here."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Usage(
        memory_bytes=_memory_bytes(host, "MemTotal"),
        available_bytes=_memory_bytes(host, "MemAvailable"),
        cpus=os.cpu_count() or 1,
        open_files=None if soft == resource.RLIM_INFINITY else soft,
        shared_bytes=_shared_bytes(),
    )


def _memory_bytes(host: Host, name: str) -> int:
    """Return one value of /proc/meminfo; raises `OSError` if it is missing."""
    for line in (host.text("/proc/meminfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/meminfo says nothing of {name}")


def _shared_bytes() -> int | None:
    try:
        return shutil.disk_usage("/dev/shm").total
    except OSError:
        return None


def check_resources(host: Host, found: Usage) -> list[Finding]:
    """Return the findings on memory, CPUs, open files and shared memory."""
    return [
        _memory(host, found),
        _cpus(host, found),
        _open_files(found),
        *_shared_memory(found),
        *_governor(host),
    ]


def _memory(host: Host, found: Usage) -> Finding:
    limit = _memory_limit(host)
    if limit is not None and limit < min(found.memory_bytes, _SERVER_BYTES):
        return warning(
            "memory",
            f"the cgroup allows {limit / _GIB:.1f} GiB, and a server may be killed for taking more",
            "cat /sys/fs/cgroup/memory.max  # in a container: start it with a larger --memory",
        )
    if found.available_bytes < _SERVER_BYTES:
        return warning(
            "memory",
            f"{found.available_bytes / _GIB:.1f} GiB of {found.memory_bytes / _GIB:.1f} GiB are "
            "free, which may be too little for a vLLM server",
            "ps aux --sort=-rss | head",
        )
    return ok("memory", f"{found.available_bytes / _GIB:.1f} GiB of memory are free")


def _memory_limit(host: Host) -> int | None:
    """Return the cgroup's limit, bytes; None if there is none or it cannot be read."""
    limit = host.number("/sys/fs/cgroup/memory.max")
    if limit is None:
        limit = host.number("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    return None if limit is None or limit > _UNLIMITED_V1 else limit


def _cpus(host: Host, found: Usage) -> Finding:
    quota = _cpu_quota(host)
    cpus = float(found.cpus) if quota is None else min(quota, float(found.cpus))
    if cpus < _CPUS:
        return warning(
            "cpus",
            f"{cpus:g} CPUs for server and client: latency will include waiting for a CPU",
            "cat /sys/fs/cgroup/cpu.max  # in a container: start it with more --cpus",
        )
    return ok("cpus", f"{cpus:g} CPUs")


def _cpu_quota(host: Host) -> float | None:
    """Return how many CPUs the cgroup allows; None if it sets no limit."""
    both = (host.text("/sys/fs/cgroup/cpu.max") or "").split()
    if len(both) == 2 and both[0].isdecimal() and both[1].isdecimal():
        return int(both[0]) / int(both[1])
    quota = host.number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")  # -1, no number, is no limit
    period = host.number("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    return quota / period if quota and period else None


def _open_files(found: Usage) -> Finding:
    if found.open_files is not None and found.open_files < _OPEN_FILES:
        return warning(
            "open files",
            f"{found.open_files} files may be open at a time, so about as many requests in flight",
            f"ulimit -n {_OPEN_FILES}",
        )
    shown = "any number of" if found.open_files is None else str(found.open_files)
    return ok("open files", f"{shown} files may be open at a time")


def _shared_memory(found: Usage) -> list[Finding]:
    if found.shared_bytes is None or found.shared_bytes >= _SHARED_BYTES:
        return []
    return [
        warning(
            "shared memory",
            f"/dev/shm has {found.shared_bytes / 2**20:.0f} MiB, too little for a server on "
            "several GPUs",
            "sudo mount -o remount,size=8G /dev/shm  # in a container: start it with --ipc=host",
        )
    ]


def _governor(host: Host) -> list[Finding]:
    governors = {path.read_text(encoding="utf-8").strip() for path in host.glob(_GOVERNORS)}
    driver = host.text(_DRIVER)
    slow = governors & {"powersave", "conservative", "ondemand"}
    if driver in _DYNAMIC_DRIVERS:
        slow -= {"powersave"}
    if slow:
        return [
            warning(
                "cpu governor",
                f"the CPUs run under '{', '.join(sorted(slow))}': they slow down between tokens, "
                "and so does the server",
                "sudo cpupower frequency-set -g performance",
            )
        ]
    return [ok("cpu governor", ", ".join(sorted(governors)))] if governors else []


def check_port(asked: int | None) -> Finding:
    """Check that a server can listen on 127.0.0.1, on this port or on any."""
    try:
        port = usable_port(asked)
    except PreflightError as error:
        return problem(
            "port", str(error), "ss -ltnp" if asked is None else f"ss -ltnp sport = {asked}"
        )
    which = "any free port" if asked is None else f"port {port}"
    return ok("port", f"a server can listen on 127.0.0.1 at {which}")
