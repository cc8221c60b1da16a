"""Clean-up of a run whose tuner died: stop its servers, restore its GPUs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tuner.devices.leases.lease_book import LeaseBook
from tuner.devices.leases.restoring import RestoreAction
from tuner.devices.limit_control import Access, LimitControl
from tuner.devices.open import memory_in_use_bytes, opened_limits
from tuner.errors import OperatorNeededError, TunerError
from tuner.servers.processes import stop_tagged, tagged_processes, wait_until

SERVER_GRACE_S = 10.0
_MEMORY_SLACK_BYTES = 64 * 2**20
_RETRY_S = 1.0
_SETTLE_S = 0.5


class CleanUp:
    """The clean-up of one run.

    Waiting for device memory and restoring leases are each tried for `deadline_s`; `log` gets
    a message per action. A run with `Access.READ` has set no limits, so none are restored.
    """

    def __init__(
        self,
        run_tag: str,
        state_folder: Path,
        deadline_s: float,
        log: Callable[[str], None],
        access: Access = Access.SET,
    ) -> None:
        self._run_tag = run_tag
        self._book = LeaseBook(state_folder)
        self._deadline_s = deadline_s
        self._log = log
        self._open_control = partial(opened_limits, access)

    def is_needed(self) -> bool:
        """Say whether a process or a lease of the run is left."""
        return bool(tagged_processes(self._run_tag)) or bool(self._book.of_run(self._run_tag))

    def run(self, memory_bytes: Mapping[str, int]) -> bool:
        """Take every step, each even if the one before it crashes; return whether all went well.

        `memory_bytes` is the memory in use of each GPU before the run.
        """
        verdicts: list[bool] = []
        time.sleep(_SETTLE_S)  # until a driver call that the tuner died in has ended too
        with ExitStack() as last_to_first:
            # again: a server may have been between its fork and its exec, and without a tag
            last_to_first.callback(lambda: verdicts.append(self._stop_servers()))
            last_to_first.callback(lambda: verdicts.append(self._restore_leases()))
            last_to_first.callback(lambda: self._wait_for_memory(memory_bytes))
            last_to_first.callback(lambda: verdicts.append(self._stop_servers()))
        return all(verdicts)

    def _stop_servers(self) -> bool:
        try:
            stopped = stop_tagged(self._run_tag, grace_s=SERVER_GRACE_S)
        except OperatorNeededError as error:
            self._log(str(error))
            return False
        if stopped:
            self._log(f"stopped {stopped} processes of the run")
        return True

    def _wait_for_memory(self, before_bytes: Mapping[str, int]) -> None:
        """Wait until the GPUs hold no more than before. Others may use them: it never fails."""
        end_s = time.monotonic() + self._deadline_s
        for uuid, used in before_bytes.items():
            try:
                with opened_limits(Access.READ, uuid) as control:
                    if control is None or _holds_at_most(
                        control, uuid, used + _MEMORY_SLACK_BYTES, end_s - time.monotonic()
                    ):
                        continue
                self._log(
                    f"GPU {uuid} still holds more memory than before the run, "
                    f"{self._deadline_s:g} s after its servers were stopped; see who uses it with "
                    "`nvidia-smi`"
                )
            except TunerError as error:
                self._log(f"GPU memory cannot be read: {error}")

    def _restore_leases(self) -> bool:
        deadline_s = time.monotonic() + self._deadline_s
        while leases := self._book.of_run(self._run_tag):
            verdicts = [self._is_restored(lease.uuid) for lease in leases]
            if all(verdicts):
                return True
            if time.monotonic() > deadline_s:
                self._log("gave up; the next run or `tuner gpu restore` puts the GPUs back")
                return False
            time.sleep(_RETRY_S)
        return True

    def _is_restored(self, uuid: str) -> bool:
        outcome = self._book.restore_run(self._open_control, uuid, self._run_tag)
        if outcome is None:
            return True
        self._log(outcome.message)
        return outcome.action is not RestoreAction.FAILED


def _holds_at_most(control: LimitControl, uuid: str, most_bytes: int, deadline_s: float) -> bool:
    return wait_until(lambda: control.memory_used_bytes(uuid) <= most_bytes, deadline_s)


def memory_in_use(log: Callable[[str], None]) -> Mapping[str, int]:
    """Return the memory in use of each GPU that a server started from here sees.

    Other GPUs of the machine are other people's: nobody has to wait for them. Empty where it
    cannot be known.
    """
    try:
        return memory_in_use_bytes()
    except TunerError as error:
        log(f"GPU memory cannot be read: {error}")
        return {}
