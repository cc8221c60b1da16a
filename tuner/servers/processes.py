"""Process groups of a run, found and stopped by a tag in their environment.

A tag is inherited by every descendant, in any session and under any parent, and can be read
from `/proc` by a later tuner: that finds what a killed API server or a killed tuner left behind.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import OperatorNeededError
from tuner.host.process_stat import process_stat

RUN_TAG = "TUNER_RUN_TAG"
LAUNCH_TAG = "TUNER_LAUNCH_TAG"
_KILL_DEADLINE_S = 10.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Process:
    """One process: a pid means the same process only together with its start."""

    pid: int
    start_ticks: int
    parent_pid: int
    name: str
    run_tag: str


def tag_environment(run_tag: str, launch_tag: str) -> dict[str, str]:
    """Return the variables that make a process and its descendants findable."""
    # vLLM's engine and workers set their title, which overwrites the memory that
    # /proc/PID/environ shows, unless SPT_NOENV tells setproctitle to leave it alone.
    return {RUN_TAG: run_tag, LAUNCH_TAG: launch_tag, "SPT_NOENV": "1"}


def tagged_processes(
    run_tag: str | None = None, *, launch_tag: str | None = None, spared_tag: str | None = None
) -> tuple[Process, ...]:
    """Return the living processes of a run (of every run if None), and their descendants.

    `launch_tag` narrows it to one server of the run. Zombies, this process and those with the
    launch tag `spared_tag` are left out.
    """
    wanted = {RUN_TAG: run_tag, LAUNCH_TAG: launch_tag}
    everything = {entry.pid: entry for entry in _all_processes()}
    tagged = {pid: p for pid, p in everything.items() if p.run_tag and _matches(pid, wanted)}
    left_out = {os.getpid()}
    if spared_tag is not None:
        left_out |= {pid for pid in tagged if _matches(pid, {LAUNCH_TAG: spared_tag})}
    tagged = {pid: process for pid, process in tagged.items() if pid not in left_out}
    grew = True
    while grew:  # descendants that dropped or overwrote their environment
        children = {
            pid: entry
            for pid, entry in everything.items()
            if pid not in tagged and pid not in left_out and entry.parent_pid in tagged
        }
        tagged |= children
        grew = bool(children)
    return tuple(tagged.values())


def stop_tagged(
    run_tag: str | None,
    *,
    grace_s: float,
    launch_tag: str | None = None,
    spared_tag: str | None = None,
) -> int:
    """Stop those processes: TERM once, KILL after `grace_s`; return how many there were.

    Only the top of each tree is sent TERM: a server takes its own workers down, and a second
    signal aborts that. Raises `OperatorNeededError` if one survives KILL.
    """
    seen: set[tuple[int, int]] = set()

    def living() -> tuple[Process, ...]:
        found = tagged_processes(run_tag, launch_tag=launch_tag, spared_tag=spared_tag)
        seen.update((p.pid, p.start_ticks) for p in found)
        return found

    first = living()
    if first and grace_s > 0:
        pids = {p.pid for p in first}
        _signal_each((p for p in first if p.parent_pid not in pids), signal.SIGTERM)
        wait_until(lambda: not living(), grace_s)
    deadline_s = time.monotonic() + _KILL_DEADLINE_S
    while left := living():
        if time.monotonic() > deadline_s:
            names = ", ".join(f"{p.name} (pid {p.pid})" for p in left)
            raise OperatorNeededError(
                f"{names} cannot be killed; a driver call may hang: look at `dmesg`, "
                "then reset the device or restart the machine"
            )
        _signal_each(left, signal.SIGKILL)
        time.sleep(_POLL_S)
    return len(seen)


def wait_until(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Poll `condition` for `deadline_s` seconds; return whether it came true."""
    end_s = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() >= end_s:
            return False
        time.sleep(_POLL_S)
    return True


def _signal_each(processes: Iterable[Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            continue
        try:  # the handle is of this very process from here on, so the check cannot go stale
            found = _read_process(process.pid)
            if found is not None and found.start_ticks == process.start_ticks:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)


def _all_processes() -> Iterable[Process]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            process = _read_process(int(entry.name))
            if process is not None:
                yield process


def _read_process(pid: int) -> Process | None:
    """Return what /proc says of a process, or None for one that is gone or a zombie."""
    stat = process_stat(pid)
    if stat is None:
        return None
    return Process(
        pid,
        start_ticks=stat.start_ticks,
        parent_pid=stat.parent_pid,
        name=stat.name,
        run_tag=_variables(pid, (RUN_TAG,)).get(RUN_TAG, ""),
    )


def _matches(pid: int, wanted: Mapping[str, str | None]) -> bool:
    found = _variables(pid, wanted)
    return all(value is None or found.get(name) == value for name, value in wanted.items())


def _variables(pid: int, names: Iterable[str]) -> dict[str, str]:
    """Return those variables of a process's environment, and nothing else of it."""
    entries = (entry.partition(b"=") for entry in _read(pid, "environ").split(b"\0"))
    wanted = {name.encode() for name in names}
    return {
        name.decode(): value.decode(errors="replace")
        for name, _, value in entries
        if name in wanted
    }


def _read(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return b""
