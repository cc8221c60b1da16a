"""The limits of this machine's GPUs, and what was put back, as tables and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tuner.devices.leases.lease_book import LeaseBook
from tuner.devices.leases.lease_files import Entry, Lease
from tuner.devices.leases.restoring import RestoreAction, RestoreOutcome
from tuner.devices.limit_control import LimitReader, LimitState
from tuner.errors import OperatorNeededError
from tuner.host.process import owner_state
from tuner.report.labels import UNKNOWN

_STYLES = {
    RestoreAction.RESTORED: "green",
    RestoreAction.REMOVED: "dim",
    RestoreAction.LEFT_ALONE: "cyan",
    RestoreAction.UNREADABLE: "yellow",
    RestoreAction.FAILED: "red",
}


@dataclass(frozen=True, slots=True)
class GpuStatus:
    """One GPU: its limits now, and what a lease says was found and set. None is unknown.

    `problem` says why a GPU that is here does not answer.

    `owner` and `owner_state` are of the lease, None for a GPU that nobody has leased. `is_here` is
    False for a leased GPU that NVML does not show.
    """

    uuid: str
    name: str
    is_here: bool
    power_limit_w: float | None
    enforced_power_limit_w: float | None
    default_power_limit_w: float | None
    min_power_limit_w: float | None
    max_power_limit_w: float | None
    found_power_limit_w: float | None
    set_power_limit_w: float | None
    found_sm_clock_mhz: int | None
    set_sm_clock_mhz: int | None
    owner: str | None
    owner_state: str | None
    leased_at: str | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class MachineStatus:
    """The GPUs of this machine, and the files of the state folder that cannot be read."""

    gpus: tuple[GpuStatus, ...]
    unreadable: tuple[Entry, ...]


def machine_status(control: LimitReader | None, *books: LeaseBook) -> MachineStatus:
    """Read every GPU and every lease; changes nothing. `control` is None without NVML."""
    entries = [entry for book in books for entry in book.entries()]
    leases = {entry.lease.uuid: entry.lease for entry in entries if entry.lease is not None}
    states, problems = _read(control)
    uuids = dict.fromkeys((*(() if control is None else control.uuids()), *leases))
    return MachineStatus(
        tuple(
            _status(uuid, states.get(uuid), leases.get(uuid), problems.get(uuid)) for uuid in uuids
        ),
        tuple(entry for entry in entries if entry.lease is None),
    )


def _read(control: LimitReader | None) -> tuple[dict[str, LimitState], dict[str, str]]:
    """Return the limits of the GPUs that answer, and why the others do not."""
    states: dict[str, LimitState] = {}
    problems: dict[str, str] = {}
    if control is None:
        return states, problems
    for uuid in control.uuids():
        try:
            states[uuid] = control.state(uuid)
        except OperatorNeededError as error:
            problems[uuid] = str(error)
    return states, problems


def _status(
    uuid: str, state: LimitState | None, lease: Lease | None, problem: str | None
) -> GpuStatus:
    name = state.name if state else lease.name if lease else uuid
    return GpuStatus(
        uuid=uuid,
        name=name,
        is_here=state is not None or problem is not None,
        problem=problem,
        power_limit_w=state.power_limit_w if state else None,
        enforced_power_limit_w=state.enforced_power_limit_w if state else None,
        default_power_limit_w=state.default_power_limit_w if state else None,
        min_power_limit_w=state.min_power_limit_w if state else None,
        max_power_limit_w=state.max_power_limit_w if state else None,
        found_power_limit_w=lease.found.power_limit_w if lease else None,
        set_power_limit_w=lease.set.power_limit_w if lease else None,
        found_sm_clock_mhz=lease.found.sm_clock_mhz if lease else None,
        set_sm_clock_mhz=lease.set.sm_clock_mhz if lease else None,
        owner=str(lease.owner) if lease else None,
        owner_state=owner_state(lease.owner).value if lease else None,
        leased_at=lease.taken_at if lease else None,
    )


def status_json(status: MachineStatus) -> dict[str, Any]:
    """Return the status as plain data."""
    return {
        "gpus": [asdict(gpu) for gpu in status.gpus],
        "unreadable": [{"path": str(e.path), "problem": e.problem} for e in status.unreadable],
    }


def show_status(console: Console, status: MachineStatus) -> None:
    """Print found, set and default per GPU, and whose the lease is."""
    if not status.gpus:
        console.print("no NVIDIA GPU is seen here, and none is leased", markup=False)
    else:
        console.print(_status_table(status.gpus))
    for gpu in status.gpus:
        if gpu.problem is not None:
            console.print(Text(f"{gpu.uuid}: {gpu.problem}", style="red"))
    for entry in status.unreadable:
        console.print(Text(f"{entry.path} is no readable lease: {entry.problem}", style="yellow"))
    if any(gpu.owner_state == "dead" for gpu in status.gpus):
        console.print("`tuner gpu restore` puts back what a dead run left", markup=False)


def _status_table(gpus: Sequence[GpuStatus]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("GPU", overflow="fold")
    for title in ("now", "found", "set", "default", "range"):
        table.add_column(Text(title), justify="right", no_wrap=True)
    table.add_column("lease", overflow="fold")
    for gpu in gpus:
        name = Text.assemble(gpu.name, (f"\n{gpu.uuid}", "dim"))
        table.add_row(
            name if gpu.is_here else Text.assemble(name, ("\nnot seen here", "yellow")),
            _watts(gpu.power_limit_w),
            _pair(gpu.found_power_limit_w, gpu.found_sm_clock_mhz),
            _pair(gpu.set_power_limit_w, gpu.set_sm_clock_mhz),
            _watts(gpu.default_power_limit_w),
            _range(gpu.min_power_limit_w, gpu.max_power_limit_w),
            Text("none") if gpu.owner is None else Text(f"{gpu.owner}, {gpu.owner_state}"),
        )
    return table


def _watts(value_w: float | None) -> str:
    return UNKNOWN if value_w is None else f"{value_w:g} W"


def _pair(power_w: float | None, clock_mhz: int | None) -> str:
    return _watts(power_w) if clock_mhz is None else f"{_watts(power_w)}\n{clock_mhz} MHz"


def _range(low_w: float | None, high_w: float | None) -> str:
    return UNKNOWN if low_w is None or high_w is None else f"{low_w:g}..{high_w:g} W"


def restore_json(outcomes: Sequence[RestoreOutcome]) -> list[dict[str, str]]:
    """Return what was put back as plain data."""
    return [{"gpu": o.gpu, "action": o.action.value, "message": o.message} for o in outcomes]


def show_restore(console: Console, outcomes: Sequence[RestoreOutcome]) -> None:
    """Print what was put back, one line per lease."""
    if not outcomes:
        console.print("nothing to put back: no GPU is leased", markup=False)
    for outcome in outcomes:
        action = (f"{outcome.action.value}: ", _STYLES[outcome.action])
        console.print(Text.assemble(action, outcome.message))


def is_restored(outcomes: Sequence[RestoreOutcome]) -> bool:
    """Say whether nothing is left for a person to do; else the command needs an operator."""
    bad = (RestoreAction.FAILED, RestoreAction.UNREADABLE)
    return all(outcome.action not in bad for outcome in outcomes)
