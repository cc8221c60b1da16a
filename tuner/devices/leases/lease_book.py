"""Lease book: a GPU's limits are written down before anything changes, and restored.

A lease's file outlives its owner. From it the guardian, the next run or `tuner gpu restore` knows
which limits to restore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from tuner.devices.leases.lease_files import (
    Entry,
    Lease,
    LimitSettings,
    lease_path,
    lease_text,
    read_entry,
)
from tuner.devices.leases.restoring import (
    RestoreAction,
    RestoreOutcome,
    needs_gpu,
    not_ours,
    not_put_back,
    put_back,
    put_back_clock,
    put_back_power,
    put_back_profiles,
    restore_entry,
)
from tuner.devices.limit_control import LimitControl, PermissionDeniedError
from tuner.errors import OperatorNeededError, PreflightError, TunerError
from tuner.host.durable_files import remove_durably, write_durably
from tuner.host.locks import locked_folder
from tuner.host.process import Owner, OwnerState, owner_state, this_owner

# Opens the limits of one GPU, given its UUID: None if it is not here. Each GPU has a control of
# its own where GPUs are restored, so that one which hangs or is lost does not keep the others.
ControlOpener: TypeAlias = Callable[[str], AbstractContextManager[LimitControl | None]]


class LeaseBook:
    """The leases of this machine: one file per GPU in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, control: LimitControl, uuid: str, owner: Owner) -> Lease:
        """Write down the limits of a GPU, which nobody else may change from then on.

        The lease of a dead owner is taken over, with the limits *it* found. Raises
        `PreflightError`, with nothing changed, if another owner has the GPU or the lease cannot be
        written.
        """
        path = lease_path(self.folder, uuid)
        try:
            with locked_folder(self.folder):
                left = _left_by_the_dead(read_entry(path))
                now = datetime.now(UTC).isoformat(timespec="seconds")
                if left is not None:
                    lease = replace(left, owner=owner, taken_at=now)
                else:
                    state = control.state(uuid)
                    found = LimitSettings(state.power_limit_w, state.locked_sm_clock_mhz)
                    lease = Lease(uuid, state.name, found, LimitSettings(None, None), owner, now)
                write_durably(path, lease_text(lease))
        except OSError as error:
            raise PreflightError(
                f"the limits of GPU {uuid} cannot be saved in {path} ({error.strerror}), so "
                "nothing was changed; free space, or name a writable folder in TUNER_STATE_DIR"
            ) from error
        return lease

    def set_limits(
        self,
        control: LimitControl,
        lease: Lease,
        *,
        power_limit_w: float | None,
        sm_clock_mhz: int | None,
        power_profiles: tuple[str, ...] | None = None,
    ) -> Lease:
        """Set the limits that are given, restore those that are None; return the updated lease.

        Raises what `control` raises, and `OperatorNeededError` if the lease was lost.
        """
        with self._held(lease) as held:
            held = self._set_power(control, held, power_limit_w)
            held = self._set_clock(control, held, sm_clock_mhz)
            return self._set_profiles(control, held, power_profiles)

    def give_back(self, control: LimitControl, lease: Lease) -> None:
        """Restore the limits from before the run, verify them, and end the lease.

        Raises `OperatorNeededError` if the GPU does not take it; the lease then stays.
        """
        path = lease_path(self.folder, lease.uuid)
        with _folder_faults(path), locked_folder(self.folder):
            entry = read_entry(path)
            if entry is not None and entry.lease is not None and _is_same(entry.lease, lease):
                put_back(control, entry.lease)
                remove_durably(path)

    def entries(self) -> tuple[Entry, ...]:
        """Read every file of the folder. Torn and foreign ones have no lease but a problem."""
        read = (read_entry(path) for path in sorted(self.folder.glob("*.json")))
        return tuple(entry for entry in read if entry is not None)

    def restore_all(
        self, open_control: ControlOpener, *, force: bool = False
    ) -> list[RestoreOutcome]:
        """Restore the GPUs of dead runs, and with `force` those of living runs too.

        One that cannot be restored is an outcome, not an error: the others still are.
        """
        outcomes = (self._restore(e, open_control, None, force=force) for e in self.entries())
        return [outcome for outcome in outcomes if outcome is not None]

    def restore_run(
        self, open_control: ControlOpener, uuid: str, run_tag: str
    ) -> RestoreOutcome | None:
        """Restore one GPU if that run, which is known to have ended, still has the lease of it."""
        entry = read_entry(lease_path(self.folder, uuid))
        return None if entry is None else self._restore(entry, open_control, run_tag, force=True)

    def of_run(self, run_tag: str) -> tuple[Lease, ...]:
        """Return the leases of a run."""
        leases = (entry.lease for entry in self.entries())
        return tuple(lease for lease in leases if lease and lease.owner.run_tag == run_tag)

    def _restore(
        self, entry: Entry, open_control: ControlOpener, run_tag: str | None, *, force: bool
    ) -> RestoreOutcome | None:
        lease, path = entry.lease, entry.path
        if not _is_asked_for(entry, run_tag):
            return None
        if lease is None:
            return restore_entry(None, entry, force=force)
        opened = open_control(lease.uuid) if needs_gpu(lease, force=force) else nullcontext()
        try:
            # opened before the folder is locked: that may take a driver's whole deadline
            with opened as control, _folder_faults(path), locked_folder(self.folder):
                now = read_entry(path)  # again: its owner may have ended it meanwhile
                if now is None or not _is_asked_for(now, run_tag):
                    return None
                return restore_entry(control, now, force=force)
        except TunerError as error:
            return RestoreOutcome(lease.uuid, RestoreAction.FAILED, not_put_back(lease, error))

    def _set_power(self, control: LimitControl, lease: Lease, watts: float | None) -> Lease:
        if watts is not None and lease.found.power_limit_w is None:
            raise PreflightError(
                f"the power limit of GPU {lease.name} ({lease.uuid}) cannot be read, so it could "
                "not be put back and is not set; leave out the knob power_limit_w"
            )
        if watts is not None:
            return self._change(
                lease,
                replace(lease.set, power_limit_w=watts),
                lambda: control.set_power_limit(lease.uuid, watts),
            )
        put_back_power(control, lease)
        return self._note(lease, replace(lease.set, power_limit_w=None))

    def _set_clock(self, control: LimitControl, lease: Lease, mhz: int | None) -> Lease:
        if mhz is not None:
            return self._change(
                lease,
                replace(lease.set, sm_clock_mhz=mhz),
                lambda: control.lock_sm_clock(lease.uuid, mhz),
            )
        put_back_clock(control, lease)
        return self._note(lease, replace(lease.set, sm_clock_mhz=None))

    def _set_profiles(
        self, control: LimitControl, lease: Lease, names: tuple[str, ...] | None
    ) -> Lease:
        if names is None:
            put_back_profiles(control, lease)
            return self._note(lease, replace(lease.set, power_profiles=None))
        if lease.found.power_profiles is None:
            now = control.power_profiles(lease.uuid)
            if now is None:
                raise PreflightError(
                    f"GPU {lease.name} ({lease.uuid}) has no workload power profiles; leave out "
                    "the knob power_profile"
                )
            lease = replace(lease, found=replace(lease.found, power_profiles=now.requested))
        return self._change(
            lease,
            replace(lease.set, power_profiles=names),
            lambda: control.set_power_profiles(lease.uuid, names),
        )

    def _change(self, lease: Lease, aim: LimitSettings, change: Callable[[], None]) -> Lease:
        aimed = self._note(lease, aim)
        try:
            change()
        except PermissionDeniedError:
            self._note(aimed, lease.set)  # nothing was changed, so there is nothing to put back
            raise
        return aimed

    def _note(self, lease: Lease, aim: LimitSettings) -> Lease:
        if aim == lease.set:
            return lease
        noted = replace(lease, set=aim)
        write_durably(lease_path(self.folder, lease.uuid), lease_text(noted))
        return noted

    @contextmanager
    def _held(self, lease: Lease) -> Iterator[Lease]:
        """Lock the folder and yield the lease as stored, if it is still in force."""
        path = lease_path(self.folder, lease.uuid)
        with _folder_faults(path), locked_folder(self.folder):
            entry = read_entry(path)
            if entry is None or entry.lease is None or not _is_same(entry.lease, lease):
                raise OperatorNeededError(
                    f"the lease of GPU {lease.name} ({lease.uuid}) was taken away while it was "
                    f"used (see {path}); find out by whom before the GPU is changed again"
                )
            yield entry.lease


class LeasedLimits:
    """The limits of several GPUs that are leased together."""

    def __init__(self, control: LimitControl, book: LeaseBook) -> None:
        self._control = control
        self._book = book
        self._leases: dict[str, Lease] = {}

    @property
    def leases(self) -> tuple[Lease, ...]:
        """The leases as they are now."""
        return tuple(self._leases.values())

    def take(self, uuid: str, owner: Owner) -> None:
        """Add a GPU."""
        self._leases[uuid] = self._book.take(self._control, uuid, owner)

    def apply(
        self,
        *,
        power_limit_w: float | None = None,
        sm_clock_mhz: int | None = None,
        power_profiles: tuple[str, ...] | None = None,
    ) -> None:
        """Set every GPU; None means as it was found."""
        for uuid, lease in self._leases.items():
            self._leases[uuid] = self._book.set_limits(
                self._control,
                lease,
                power_limit_w=power_limit_w,
                sm_clock_mhz=sm_clock_mhz,
                power_profiles=power_profiles,
            )

    def give_back(self, uuid: str) -> None:
        """Put one GPU back."""
        self._book.give_back(self._control, self._leases.pop(uuid))


@contextmanager
def leased(
    control: LimitControl, uuids: Sequence[str], owner: Owner | str, book: LeaseBook
) -> Iterator[LeasedLimits]:
    """Lease those GPUs and put every one back at the end, however it comes.

    `owner` may be the run's tag: this process is the owner then.
    """
    who = this_owner(owner) if isinstance(owner, str) else owner
    limits = LeasedLimits(control, book)
    with ExitStack() as stack:
        for uuid in uuids:
            limits.take(uuid, who)
            stack.callback(limits.give_back, uuid)  # all are called even if one of them fails
        yield limits


def _left_by_the_dead(entry: Entry | None) -> Lease | None:
    """Return the lease that a dead owner of this boot left, or None; else raise."""
    if entry is None:
        return None
    lease = entry.lease
    if lease is None:
        raise PreflightError(
            f"{entry.path} is not a lease that this version can read ({entry.problem}), so the "
            "original limits of the GPU are unknown; set them by hand and move that file away"
        )
    state = owner_state(lease.owner)
    if state is OwnerState.EARLIER_BOOT:
        return None
    if state is OwnerState.DEAD:
        return lease
    raise PreflightError(not_ours(lease, state))


def _is_same(one: Lease, other: Lease) -> bool:
    return (one.owner, one.taken_at) == (other.owner, other.taken_at)


def _is_asked_for(entry: Entry, run_tag: str | None) -> bool:
    if run_tag is None:
        return True
    return entry.lease is not None and entry.lease.owner.run_tag == run_tag


@contextmanager
def _folder_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OperatorNeededError(
            f"the lease {path} cannot be written ({error.strerror}); free space or fix the "
            "folder, then run `tuner gpu restore`"
        ) from error
