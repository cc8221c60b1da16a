"""The guardian's own process: it waits for the tuner to end and cleans up after it.

Started by `tuner.servers.guardian.guardian`, which holds a pipe to its standard input. The pipe
closes with the tuner, however that ends, so no pid is polled. It answers on its standard output:
its pid once it watches, and how the clean-up ended. It is nobody's child, since job runners, such
as Ray's workers, kill their children. Kept free of heavy imports: it lives all night.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tuner.devices.limit_control import Access
from tuner.errors import OperatorNeededError
from tuner.servers.guardian.clean_up import CleanUp, memory_in_use
from tuner.servers.guardian.run_records import forget

DONE = b"done\n"  # what the tuner says
READY = b"ready "  # what the guardian says, followed by its pid
CLEAN = b"clean\n"
UNCLEAN = b"unclean\n"
_STDIN, _STDOUT, _STDERR = 0, 1, 2
_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


@dataclass(frozen=True, slots=True)
class GuardianPlan:
    """The run that a guardian watches, and how it may clean up.

    Attributes:
        run_tag: of the servers and the leases.
        state_folder: where the leases are.
        tuner_descriptor: a pidfd of the tuner that is inherited; None before that.
        gpu_memory_bytes: the memory in use of each GPU before the first server; None to look.
        deadline_s: the longest wait for device memory, and for restoring the limits, s.
        access: whether the run may set limits, and so whether the guardian may restore them.
    """

    run_tag: str
    state_folder: Path
    tuner_descriptor: int | None
    gpu_memory_bytes: Mapping[str, int] | None
    deadline_s: float
    access: Access

    def to_argument(self) -> str:
        """Return the one argument of the process; `plan_from_argument` reads it back."""
        return json.dumps(asdict(self), default=str)


def plan_from_argument(argument: str) -> GuardianPlan:
    """Build from what `to_argument` returned."""
    data = json.loads(argument)
    return GuardianPlan(
        data["run_tag"],
        Path(data["state_folder"]),
        data["tuner_descriptor"],
        data["gpu_memory_bytes"],
        data["deadline_s"],
        Access(data["access"]),
    )


def main() -> None:
    """Guard one run, and say whether nothing of it is left."""
    plan = plan_from_argument(sys.argv[1])
    tuner_pid = os.getppid()
    _leave_the_parent()
    answers = _answers()
    for number in _IGNORED:  # they go to a whole session or service; the tuner's end is awaited
        signal.signal(number, _ignore)  # a handler, unlike SIG_IGN, is not inherited through exec
    _log(f"guardian {os.getpid()} watches over run {plan.run_tag} of process {tuner_pid}")
    known_bytes = plan.gpu_memory_bytes
    memory_bytes = memory_in_use(_log) if known_bytes is None else known_bytes
    _say(answers, READY + f"{os.getpid()}\n".encode())
    is_done = _tuners_end(plan.tuner_descriptor)
    clean_up = CleanUp(plan.run_tag, plan.state_folder, plan.deadline_s, _log, plan.access)
    if not is_done:
        _log("the tuner has gone without a word; cleaning up")
        is_clean = clean_up.run(memory_bytes)
    elif clean_up.is_needed():
        _log("the tuner is done but left something; cleaning up")
        is_clean = clean_up.run(memory_bytes)
    else:
        is_clean = True
    if is_clean:
        is_clean = _is_forgotten(plan)
    unclean = "not everything could be restored or stopped"
    _log("nothing of the run is left" if is_clean else unclean)
    _say(answers, CLEAN if is_clean else UNCLEAN)


def _leave_the_parent() -> None:
    """Go on as a child of init (or of a subreaper), in a session of its own."""
    if os.fork() > 0:
        os._exit(0)
    os.setsid()


def _answers() -> int:
    """Return a descriptor of the standard output that only this process holds.

    What it starts then cannot keep the pipe open: its end is the end of this process.
    """
    descriptor = os.dup(_STDOUT)
    os.dup2(_STDERR, _STDOUT)
    return descriptor


def _say(answers: int, what: bytes) -> None:
    with suppress(BrokenPipeError):  # the tuner has gone
        os.write(answers, what)


def _is_forgotten(plan: GuardianPlan) -> bool:
    try:
        forget(plan.state_folder, plan.run_tag)
    except OperatorNeededError as error:
        _log(str(error))
        return False
    return True


def _tuners_end(tuner_descriptor: int | None) -> bool:
    """Wait for it; return whether the tuner said that it is done.

    The pipe alone would not do if some child of the tuner had inherited its other end.
    """
    heard = b""
    poll = select.poll()
    poll.register(_STDIN, select.POLLIN)
    if tuner_descriptor is not None:
        poll.register(tuner_descriptor, select.POLLIN)
    while not heard.endswith(DONE):
        ready = {descriptor for descriptor, _ in poll.poll()}
        if _STDIN in ready:
            more = os.read(_STDIN, 64)
            if not more:
                return False
            heard += more
        elif ready:
            return False
    return True


def _ignore(_number: int, _frame: object) -> None:
    pass


def _log(message: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    with suppress(OSError):  # a full disk must not keep the GPUs from being put back
        os.write(_STDERR, f"{now} {message}\n".encode())


if __name__ == "__main__":
    main()
    os._exit(0)  # a thread that hangs in a driver call would keep it alive
