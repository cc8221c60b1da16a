"""Restoring the limits of a GPU from its lease."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tuner.devices.leases.lease_files import Entry, Lease, LimitSettings
from tuner.devices.limit_control import LimitControl
from tuner.errors import OperatorNeededError, TunerError
from tuner.host.durable_files import remove_durably
from tuner.host.process import OwnerState, owner_state

_SAME_W = 0.5  # drivers round a power limit


class RestoreAction(StrEnum):
    """The action taken for an entry of the state folder."""

    RESTORED = "restored"
    REMOVED = "removed"  # from an earlier boot: limits do not survive one
    LEFT_ALONE = "left alone"
    UNREADABLE = "unreadable"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RestoreOutcome:
    """The result for one entry. `gpu` is its UUID, or the file's name if that is unreadable."""

    gpu: str
    action: RestoreAction
    message: str


def not_ours(lease: Lease, state: OwnerState) -> str:
    """Return a message that names the owner of the GPU and says what to do."""
    gpu = f"GPU {lease.name} ({lease.uuid})"
    if state is OwnerState.LIVING:
        return f"{gpu} is in use by {lease.owner}; wait for it or end it"
    return (
        f"{gpu} is leased by {lease.owner}, which cannot be seen from here (another container or "
        "machine); if it is gone, `tuner gpu restore --force` puts back what it found"
    )


def needs_gpu(lease: Lease, *, force: bool) -> bool:
    """Say whether the GPU is needed to restore this lease, as far as is known now."""
    state = owner_state(lease.owner)
    if state is OwnerState.EARLIER_BOOT:
        return lease.owner.host != socket.gethostname()  # is it a GPU of this machine?
    return force or state is OwnerState.DEAD


def restore_entry(control: LimitControl | None, entry: Entry, *, force: bool) -> RestoreOutcome:
    """Restore the limits of an entry unless its owner may live, then remove the entry."""
    lease = entry.lease
    if lease is None:
        message = f"{entry.path} is not a lease that this version can read: {entry.problem}"
        return RestoreOutcome(entry.path.name, RestoreAction.UNREADABLE, message)
    state = owner_state(lease.owner)
    is_here = control is not None and lease.uuid in control.uuids()
    if state is OwnerState.EARLIER_BOOT:
        return _forget_earlier_boot(entry.path, lease, is_here=is_here)
    if state is not OwnerState.DEAD and not force:
        return RestoreOutcome(lease.uuid, RestoreAction.LEFT_ALONE, not_ours(lease, state))
    if control is None or not is_here:
        message = f"GPU {lease.name} ({lease.uuid}) is not seen by NVML here; look at `nvidia-smi`"
        return RestoreOutcome(lease.uuid, RestoreAction.FAILED, message)
    try:
        put_back(control, lease)
    except TunerError as error:
        return RestoreOutcome(lease.uuid, RestoreAction.FAILED, str(error))
    remove_durably(entry.path)
    message = f"GPU {lease.name} ({lease.uuid}) is back at {_shown(lease.found)}, as {lease.owner}"
    return RestoreOutcome(lease.uuid, RestoreAction.RESTORED, f"{message} found it")


def _forget_earlier_boot(path: Path, lease: Lease, *, is_here: bool) -> RestoreOutcome:
    gpu = f"GPU {lease.name} ({lease.uuid})"
    if not is_here and lease.owner.host != socket.gethostname():  # a shared folder
        message = f"{gpu} is a GPU of another machine, {lease.owner.host}"
        return RestoreOutcome(lease.uuid, RestoreAction.LEFT_ALONE, message)
    remove_durably(path)
    message = (
        f"{gpu} was leased by {lease.owner} before the machine was restarted, which put it back"
    )
    return RestoreOutcome(lease.uuid, RestoreAction.REMOVED, message)


def put_back(control: LimitControl, lease: Lease) -> None:
    """Restore the limits that the run changed, each of them even if another one is refused.

    Raises `OperatorNeededError` if the GPU refuses any.
    """
    refused: list[TunerError] = []
    for step in (put_back_power, put_back_clock, put_back_profiles):
        try:
            step(control, lease)
        except TunerError as error:
            refused.append(error)
    if refused:
        raise OperatorNeededError(not_put_back(lease, *refused)) from refused[0]


def not_put_back(lease: Lease, *why: TunerError) -> str:
    """Return a message for a GPU that was not restored: why, and what to do."""
    return (
        f"GPU {lease.name} ({lease.uuid}) could not be put back to {_shown(lease.found)}: "
        f"{'; '.join(map(str, why))}; fix it, then run `tuner gpu restore`"
    )


def put_back_power(control: LimitControl, lease: Lease) -> None:
    """Put the power limit back, if the lease says that it was touched, and read it back."""
    found_w = lease.found.power_limit_w
    if lease.set.power_limit_w is None or found_w is None:
        return
    if not _is_at(control, lease.uuid, found_w):  # where it is already, no permission is needed
        control.set_power_limit(lease.uuid, found_w)
        if not _is_at(control, lease.uuid, found_w):
            raise OperatorNeededError(f"its power limit did not go back to {found_w:g} W")


def _is_at(control: LimitControl, uuid: str, watts: float) -> bool:
    now_w = control.state(uuid).power_limit_w
    return now_w is not None and abs(now_w - watts) <= _SAME_W


def put_back_clock(control: LimitControl, lease: Lease) -> None:
    """Put the clock lock back, if the lease says that it was touched, and read it back."""
    if lease.set.sm_clock_mhz is None:
        return
    found_mhz = lease.found.sm_clock_mhz
    if found_mhz is None:
        control.unlock_sm_clock(lease.uuid)
    else:
        control.lock_sm_clock(lease.uuid, found_mhz)
    now_mhz = control.state(lease.uuid).locked_sm_clock_mhz
    if now_mhz not in (found_mhz, None):  # None as well where the driver does not tell
        raise OperatorNeededError(f"its SM clock is still locked to {now_mhz} MHz")


def put_back_profiles(control: LimitControl, lease: Lease) -> None:
    """Put the power profiles back, if the lease says that they were touched, and read them back."""
    found = lease.found.power_profiles
    if lease.set.power_profiles is None or found is None:
        return
    control.set_power_profiles(lease.uuid, found)
    now = control.power_profiles(lease.uuid)
    if now is None or set(now.requested) != set(found):
        raise OperatorNeededError(f"its power profiles did not go back to {', '.join(found)}")


def _shown(found: LimitSettings) -> str:
    power = "no power limit" if found.power_limit_w is None else f"{found.power_limit_w:g} W"
    clock = "no clock lock" if found.sm_clock_mhz is None else f"{found.sm_clock_mhz} MHz"
    if found.power_profiles is None:
        return f"{power}, {clock}"
    return f"{power}, {clock}, power profiles {', '.join(found.power_profiles) or 'none'}"
