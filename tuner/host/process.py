"""Process identity: which process owns a resource of this machine, and whether it is alive."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from tuner.host.process_stat import process_stat


class OwnerState(StrEnum):
    """The state of an owner, as seen from this process."""

    LIVING = "living"
    DEAD = "dead"
    EARLIER_BOOT = "earlier boot"  # or another machine, if the folder is shared between machines
    ELSEWHERE = "elsewhere"  # in another container: its processes cannot be seen from here


@dataclass(frozen=True, slots=True)
class Owner:
    """One process. A pid means the same process only with its start, namespace and boot."""

    pid: int
    start_ticks: int
    pid_namespace: str
    host: str
    boot_id: str
    run_tag: str

    def to_json(self) -> dict[str, object]:
        """Return a JSON-ready form; `owner_from_json` reads it back."""
        return asdict(self)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (run {self.run_tag})"


def this_owner(run_tag: str) -> Owner:
    """Return this process as an owner."""
    pid = os.getpid()
    start_ticks = _start_ticks(pid)
    assert start_ticks is not None  # this process is alive
    return Owner(pid, start_ticks, _pid_namespace(), socket.gethostname(), boot_id(), run_tag)


def owner_from_json(data: Mapping[str, object]) -> Owner:
    """Build from the result of `to_json`; raises `ValueError` or `KeyError` for other data."""
    return Owner(
        whole_number(data["pid"]),
        whole_number(data["start_ticks"]),
        *(text(data[name]) for name in ("pid_namespace", "host", "boot_id", "run_tag")),
    )


def owner_state(owner: Owner) -> OwnerState:
    """Return whether the owner is alive, as far as this process can see."""
    if owner.boot_id != boot_id():
        return OwnerState.EARLIER_BOOT
    if (owner.host, owner.pid_namespace) != (socket.gethostname(), _pid_namespace()):
        return OwnerState.ELSEWHERE
    return OwnerState.LIVING if _start_ticks(owner.pid) == owner.start_ticks else OwnerState.DEAD


def boot_id() -> str:
    """Return the kernel's id of the present boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@contextmanager
def preferred_thread() -> Iterator[bool]:
    """Let this thread run before others on its core meanwhile; yields False if this user may not.

    What it starts is not preferred (`SCHED_RESET_ON_FORK`): servers keep their usual priority. One
    that was given another priority keeps it.
    """
    if os.sched_getscheduler(0) != os.SCHED_OTHER or os.getpriority(os.PRIO_PROCESS, 0) != 0:
        yield False
        return
    try:
        os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, -5)
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        with suppress(OSError):  # clearing the flag takes a right that may be gone
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def whole_number(value: object) -> int:
    """Return an integer from JSON data, or raise `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, found {value!r}")
    return value


def text(value: object) -> str:
    """Return a string from JSON data, or raise `ValueError`."""
    if not isinstance(value, str):
        raise ValueError(f"expected a string, found {value!r}")
    return value


def _pid_namespace() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _start_ticks(pid: int) -> int | None:
    """Return the start time of a process, or None if it is gone or a zombie."""
    stat = process_stat(pid)
    return None if stat is None else stat.start_ticks
