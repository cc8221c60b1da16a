"""Guardian: a process that outlives the tuner and cleans up; the repair after both were killed."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from tuner.devices.leases.lease_book import ControlOpener, LeaseBook
from tuner.devices.leases.restoring import RestoreAction
from tuner.devices.limit_control import Access
from tuner.errors import OperatorNeededError, PreflightError
from tuner.host.files.private import open_private, private_folder
from tuner.host.process import OwnerState, owner_state, this_owner
from tuner.host.python_process import PYTHON, own_environment
from tuner.servers.guardian.clean_up import SERVER_GRACE_S
from tuner.servers.guardian.guardian_process import CLEAN, DONE, READY, UNCLEAN, GuardianPlan
from tuner.servers.guardian.run_records import forget, register, registered
from tuner.servers.processes import LAUNCH_TAG, RUN_TAG, stop_tagged

_PROCESS = "tuner.servers.guardian.guardian_process"
_START_DEADLINE_S = 45.0  # longer than a driver is given to wake up
_END_DEADLINE_S = 60.0  # besides what it is given for device memory and leases


class Guardian:
    """The guardian of this run, as the tuner sees it."""

    def __init__(self, pid: int, pipe: int, answers: _Answers, log_path: Path) -> None:
        self.pid = pid
        self.log_path = log_path
        self._pipe = pipe
        self._answers = answers
        self._last_word = asyncio.ensure_future(answers.rest())

    def alive(self) -> bool:
        """Say whether it still watches."""
        return not self._last_word.done()

    async def wait_gone(self) -> bytes:
        """Return its last word once it has ended; empty if it was ended before it could say it."""
        return await asyncio.shield(self._last_word)

    def say_done(self) -> None:
        """Tell it that the tuner has cleaned up; it then verifies that and ends."""
        try:
            os.write(self._pipe, DONE)
        except BrokenPipeError:
            return  # it has gone; nothing is left to tell

    def close(self) -> None:
        """Close its pipes. Without an earlier `say_done`, the guardian cleans up."""
        os.close(self._pipe)
        self._last_word.cancel()
        self._answers.close()


class _Answers:
    """What the guardian says, through a pipe that ends with it."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        self._reader = reader
        self._transport = transport

    async def pid(self) -> int | None:
        """Return the guardian's pid once it watches; None if it ended before."""
        line = await self._reader.readline()
        return int(line.removeprefix(READY)) if line.startswith(READY) else None

    async def rest(self) -> bytes:
        """Return what else it says until it ends."""
        return await self._reader.read()

    def close(self) -> None:
        self._transport.close()


@asynccontextmanager
async def guarded(
    run_tag: str,
    *,
    log_path: Path,
    state_folder: Path,
    gpu_memory_bytes: Mapping[str, int] | None = None,
    deadline_s: float = 30.0,
    access: Access = Access.SET,
) -> AsyncIterator[Guardian]:
    """Have the servers and leases of a run cleaned up, however this process ends.

    Stop servers and give leases back inside the block. `gpu_memory_bytes` is the memory in use now,
    bytes by UUID, of the GPUs that servers will use; without it the guardian reads it, which takes
    longer. With `Access.READ`, the guardian sets nothing on a GPU either. If the guardian itself is
    ended, the block is cancelled.

    Raises `PreflightError` if the guardian cannot be started, and `OperatorNeededError` if it was
    ended or could not restore everything.
    """
    task = asyncio.current_task()
    assert task is not None
    cancelling = task.cancelling()
    with ExitStack() as undo:
        register(state_folder, this_owner(run_tag))
        undo.callback(forget, state_folder, run_tag)  # as long as nothing was started
        memory_bytes = None if gpu_memory_bytes is None else dict(gpu_memory_bytes)
        plan = GuardianPlan(run_tag, state_folder, None, memory_bytes, deadline_s, access)
        guardian = await _started(plan, log_path)
        undo.pop_all()
    watch = asyncio.create_task(_cancel_when_gone(guardian, task))
    try:
        yield guardian
        await asyncio.sleep(0)  # where a cancellation that is under way arrives
    except asyncio.CancelledError:
        if not watch.done() or task.uncancel() > cancelling:
            raise
        raise OperatorNeededError(
            f"the guardian of this run (pid {guardian.pid}) was ended, so the run was stopped: "
            "without it a crash would leave servers running and GPUs limited; find out what ended "
            "it (out of memory? see `dmesg`), then go on with `tuner resume`"
        ) from None
    finally:
        watch.cancel()
        try:
            guardian.say_done()
            await _end_of(guardian, plan)
        finally:
            guardian.close()


def repair(state_folder: Path, open_control: ControlOpener) -> list[str]:
    """Clean up after dead runs whose guardians were killed too; return a message per action.

    To be called before a run begins. Raises `OperatorNeededError` if something cannot be fixed.
    """
    messages = []
    try:
        for owner in registered(state_folder):
            state = owner_state(owner)
            if state is OwnerState.DEAD:
                stopped = stop_tagged(owner.run_tag, grace_s=SERVER_GRACE_S)
                if stopped:
                    messages.append(f"stopped {stopped} processes that {owner} left behind")
                forget(state_folder, owner.run_tag)
            elif state is OwnerState.EARLIER_BOOT and owner.host == socket.gethostname():
                forget(state_folder, owner.run_tag)
    finally:
        outcomes = LeaseBook(state_folder).restore_all(open_control)
    failed = [o.message for o in outcomes if o.action is RestoreAction.FAILED]
    if failed:
        raise OperatorNeededError("; ".join(failed))
    return messages + [o.message for o in outcomes if o.action is not RestoreAction.LEFT_ALONE]


async def _started(plan: GuardianPlan, log_path: Path) -> Guardian:
    with ExitStack() as undo:
        reading, writing = os.pipe()
        undo.callback(os.close, writing)
        try:
            process = _spawn(plan, reading, log_path)
        except OSError as error:
            raise PreflightError(
                f"the guardian of this run cannot be started (log {log_path}): {error}"
            ) from error
        finally:
            os.close(reading)
        undo.callback(process.wait)  # of the process that forks the guardian and ends
        undo.callback(process.kill)
        answers = await _answers_of(process)
        undo.callback(answers.close)
        pid = await _pid_of(answers)
        if pid is None:  # what has started so far ends with the pipe
            raise PreflightError(
                f"the guardian of this run did not start within {_START_DEADLINE_S:g} s; see "
                f"{log_path}"
            )
        undo.pop_all()
        process.wait()
    return Guardian(pid, writing, answers, log_path)


def _spawn(plan: GuardianPlan, pipe: int, log_path: Path) -> subprocess.Popen[bytes]:
    private_folder(log_path.parent)
    tuner_descriptor = os.pidfd_open(os.getpid())
    try:
        with os.fdopen(open_private(log_path, os.O_WRONLY | os.O_APPEND), "ab") as log:
            inherited = replace(
                plan, state_folder=plan.state_folder.resolve(), tuner_descriptor=tuner_descriptor
            )
            return subprocess.Popen(
                [*PYTHON, _PROCESS, inherited.to_argument()],
                env=own_environment(RUN_TAG, LAUNCH_TAG),
                stdin=pipe,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                pass_fds=(tuner_descriptor,),
            )
    finally:
        os.close(tuner_descriptor)


async def _answers_of(process: subprocess.Popen[bytes]) -> _Answers:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), process.stdout
    )
    return _Answers(reader, transport)


async def _pid_of(answers: _Answers) -> int | None:
    try:
        async with asyncio.timeout(_START_DEADLINE_S):
            return await answers.pid()
    except TimeoutError:
        return None


async def _cancel_when_gone(guardian: Guardian, task: asyncio.Task[object]) -> None:
    await guardian.wait_gone()
    task.cancel()


async def _end_of(guardian: Guardian, plan: GuardianPlan) -> None:
    """Wait for it; if it was ended before it could verify, do that here."""
    try:
        async with asyncio.timeout(_END_DEADLINE_S + 2 * plan.deadline_s):
            last_word = await guardian.wait_gone()
    except TimeoutError:
        raise OperatorNeededError(
            f"the guardian of this run (pid {guardian.pid}) does not end; a driver "
            f"call may hang: see {guardian.log_path}"
        ) from None
    if last_word == UNCLEAN:
        raise OperatorNeededError(
            "something that this run changed or started could not be restored or stopped; see "
            f"{guardian.log_path}, fix it, then run `tuner gpu restore`"
        )
    if last_word != CLEAN:
        await asyncio.to_thread(stop_tagged, plan.run_tag, grace_s=SERVER_GRACE_S)
        forget(plan.state_folder, plan.run_tag)
