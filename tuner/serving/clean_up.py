"""What is done about a run whose tuner has gone: stop its servers, put its GPUs back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tuner.errors import OperatorNeededError, TunerError
from tuner.gpu.lease_files import Lease
from tuner.gpu.leases import LeaseBook
from tuner.gpu.limits import LimitControl, open_limits
from tuner.gpu.restoring import RestoreAction
from tuner.serving.processes import stop_tagged, tagged_processes, wait_until

SERVER_GRACE_S = 10.0
_MEMORY_SLACK_BYTES = 64 * 2**20
_RETRY_S = 1.0
_SETTLE_S = 0.5


class CleanUp:
    """The clean-up of one run.

    Waiting for device memory and restoring leases are each tried for `deadline_s`; `log` is told
    what was done.
    """

    def __init__(
        self, run_tag: str, state_folder: Path, deadline_s: float, log: Callable[[str], None]
    ) -> None:
        self._run_tag = run_tag
        self._book = LeaseBook(state_folder)
        self._deadline_s = deadline_s
        self._log = log

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

        def is_free(control: LimitControl) -> bool:
            return all(
                control.memory_used_bytes(uuid) <= used + _MEMORY_SLACK_BYTES
                for uuid, used in before_bytes.items()
            )

        if not before_bytes:
            return
        try:
            with opened_limits() as control:
                if control and not wait_until(lambda: is_free(control), self._deadline_s):
                    self._log(
                        f"the GPUs still hold more memory than before the run, {self._deadline_s:g}"
                        " s after its servers were stopped; see who uses it with `nvidia-smi`"
                    )
        except TunerError as error:
            self._log(f"GPU memory cannot be read: {error}")

    def _restore_leases(self) -> bool:
        deadline_s = time.monotonic() + self._deadline_s
        leases = self._book.of_run(self._run_tag)
        if self._are_restored(leases):
            return True
        while leases := self._book.of_run(self._run_tag):
            # each with a control of its own: a GPU that hangs must not keep the others
            verdicts = [self._are_restored((lease,)) for lease in leases]
            if all(verdicts):
                return True
            if time.monotonic() > deadline_s:
                self._log("gave up; the next run or `tuner gpu restore` puts the GPUs back")
                return False
            time.sleep(_RETRY_S)
        return True

    def _are_restored(self, leases: Sequence[Lease]) -> bool:
        if not leases:
            return True
        try:
            with opened_limits() as control:
                verdicts = [self._is_restored(control, lease.uuid) for lease in leases]
        except TunerError as error:
            self._log(f"{', '.join(lease.uuid for lease in leases)}: {error}")
            return False
        return all(verdicts)

    def _is_restored(self, control: LimitControl | None, uuid: str) -> bool:
        outcome = self._book.restore_run(control, uuid, self._run_tag)
        if outcome is None:
            return True
        self._log(outcome.message)
        return outcome.action is not RestoreAction.FAILED


def memory_in_use(log: Callable[[str], None]) -> Mapping[str, int]:
    """Return the memory in use of every GPU, as far as it is known."""
    try:
        with opened_limits() as control:
            if control is None:
                return {}
            return {uuid: control.memory_used_bytes(uuid) for uuid in control.uuids()}
    except TunerError as error:
        log(f"GPU memory cannot be read: {error}")
        return {}


@contextmanager
def opened_limits() -> Iterator[LimitControl | None]:
    """Give the control over the limits of this machine's GPUs; None without NVML."""
    control = open_limits()
    try:
        yield control
    finally:
        if control is not None:
            control.close()
