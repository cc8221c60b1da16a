"""Leftover checks: leases, servers and run records that a crash may have left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tuner.devices.leases.lease_book import LeaseBook
from tuner.devices.leases.lease_files import Entry
from tuner.host.finding import Finding, ok, problem, warning
from tuner.host.process import OwnerState, owner_state
from tuner.servers.guardian.run_records import registered
from tuner.servers.processes import Process, tagged_processes

_RESTORE = "tuner gpu restore"


def check_leftovers(
    folders: Sequence[Path], processes: Callable[[], tuple[Process, ...]] = tagged_processes
) -> list[Finding]:
    """Check state folders, and the processes that carry a run's tag."""
    entries = [entry for folder in folders for entry in LeaseBook(folder).entries()]
    found = [finding for entry in entries if (finding := _lease(entry)) is not None]
    owners = [owner for folder in folders for owner in registered(folder)]
    living = sorted(o.run_tag for o in owners if owner_state(o) is OwnerState.LIVING)
    dead = sorted(o.run_tag for o in owners if owner_state(o) is OwnerState.DEAD)
    by_run = _by_run(processes())
    found += [_dead_run(tag, by_run.get(tag, [])) for tag in dead]
    found += [_stranger(tag, by_run[tag]) for tag in by_run if tag not in (*living, *dead)]
    found += [
        warning("runs", f"the run {tag} goes on here; a second one would disturb it", "tuner list")
        for tag in living
    ]
    return found or [ok("leftovers", "no lease, server or record of an earlier run is left")]


def _lease(entry: Entry) -> Finding | None:
    if entry.lease is None:
        return problem(
            "leases",
            f"{entry.path} is not a readable lease ({entry.problem}), so the GPU's settings "
            "before the run are unknown",
            f"nvidia-smi -q -d POWER; mv {entry.path} {entry.path}.old",
        )
    lease, state = entry.lease, owner_state(entry.lease.owner)
    gpu = f"{lease.name} ({lease.uuid})"
    match state:
        case OwnerState.LIVING:
            return warning("leases", f"{gpu} is in use by {lease.owner}", "tuner gpu status")
        case OwnerState.ELSEWHERE:
            message = f"{gpu} is leased by {lease.owner}, which cannot be seen from here"
            return warning("leases", message, f"{_RESTORE} --force  # if that run is gone")
        case OwnerState.DEAD:
            message = f"{gpu} is as a run that died left it: {lease.owner}"
            return warning("leases", message, _RESTORE)
        case OwnerState.EARLIER_BOOT:
            return None  # a restart put it back


def _by_run(processes: Sequence[Process]) -> dict[str, list[Process]]:
    found: dict[str, list[Process]] = {}
    for process in processes:
        if process.run_tag:  # a descendant may have dropped its environment
            found.setdefault(process.run_tag, []).append(process)
    return found


def _dead_run(tag: str, left: Sequence[Process]) -> Finding:
    """Report what a dead run left; the next run that starts a server cleans it up."""
    if not left:
        message = f"the run {tag} died without cleaning up; the next run of a server does it"
        return warning("leftovers", message, _RESTORE)
    message = f"the run {tag} died and left {_named(left)}; the next run of a server stops them"
    return warning("leftovers", message, f"kill {_pids(left)}")


def _stranger(tag: str, processes: Sequence[Process]) -> Finding:
    message = f"{_named(processes)} of the run {tag}, of which this state folder knows nothing"
    return warning("leftovers", message, f"ps -fp {_pids(processes)}")


def _named(processes: Sequence[Process]) -> str:
    return ", ".join(f"{p.name} (pid {p.pid})" for p in processes)


def _pids(processes: Sequence[Process]) -> str:
    return " ".join(str(p.pid) for p in processes)
