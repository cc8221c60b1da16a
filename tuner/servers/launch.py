"""The life of one server process: from a free port, through readiness, to the last process."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from tuner.configuration import Configuration
from tuner.errors import PreflightError
from tuner.host.files.private import open_private, private_folder
from tuner.host.redaction import take_secrets_out_of, without_secrets
from tuner.records import Failure, FailureKind
from tuner.servers.forking.fork_servers import ForkServers
from tuner.servers.processes import stop_tagged, tag_environment, tagged_processes, wait_until
from tuner.servers.server import Endpoint, HttpApi, Server, ServerUnreachableError

HOST = "127.0.0.1"
_POLL_S = 0.1
_PROBE_S = 2.0
_ORPHANS_S = 2.0
_LOG_HEAD_BYTES = 262_144
_LOG_TAIL_BYTES = 1_048_576


class LaunchFailedError(Exception):
    """The server did not get ready; nothing of it is left running."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class PortTakenError(PreflightError):
    """Somebody listens on the server's port, perhaps for a moment."""


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What to start, and for how long to wait for it.

    The server's variables are added to this process's own, and `configuration.environment` goes
    before them. Processes get `run_tag` in their environment. `port` None means any free one.
    With `forks` the server is forked where that is possible.
    """

    server: Server
    model: str
    configuration: Configuration
    run_tag: str
    log_path: Path
    startup_deadline_s: float
    port: int | None = None
    stop_grace_s: float = 20.0
    forks: ForkServers | None = None


@dataclass(frozen=True, slots=True)
class RunningServer(Endpoint):
    """A server that is ready. `exit_code()` is None for as long as its first process lives."""

    log_path: Path
    pid: int
    exit_code: Callable[[], int | None]


@asynccontextmanager
async def launched(plan: LaunchPlan) -> AsyncIterator[RunningServer]:
    """Start a server, wait until it is ready, and leave no process of it behind.

    Raises `PortTakenError`, `PreflightError` for a command that cannot be run, and
    `LaunchFailedError` for a server that does not get ready.
    """
    port = usable_port(plan.port)
    served_name = f"tuner-{secrets.token_hex(8)}"
    process = _ServerProcess(plan, port, served_name)
    try:
        server = RunningServer(
            plan.server.api,
            f"http://{HOST}:{port}",
            served_name,
            plan.log_path,
            process.pid,
            process.exit_code,
        )
        await _until_ready(server, plan)
        yield server
    finally:
        await _to_the_end(process.stop)


def usable_port(asked: int | None) -> int:
    """Return `asked` if nothing listens there (else `PortTakenError`), or a free port if None."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, asked or 0))
        except (OSError, OverflowError) as error:
            raise PortTakenError(
                f"port {asked} on {HOST} cannot be used ({error}); "
                "stop what listens there or leave the port out"
            ) from None
        return int(probe.getsockname()[1])


def read_log(path: Path) -> str:
    """Return the beginning and the end of a log, which may be huge."""
    try:
        with path.open("rb") as log:
            head = log.read(_LOG_HEAD_BYTES)
            size = log.seek(0, os.SEEK_END)
            log.seek(max(len(head), size - _LOG_TAIL_BYTES))
            return (head + log.read()).decode(errors="replace")
    except FileNotFoundError:
        return ""


class _ServerProcess:
    """The first process of a server, in a session of its own.

    It is not reaped before the end: until then neither its pid nor its group can be somebody
    else's.
    """

    def __init__(self, plan: LaunchPlan, port: int, served_name: str) -> None:
        argv = plan.server.command_line(
            plan.model, plan.configuration, host=HOST, port=port, served_name=served_name
        )
        forks = plan.forks
        self._run_tag = plan.run_tag
        self._launch_tag = served_name
        self._grace_s = plan.stop_grace_s
        self._log_path = plan.log_path
        self._environment = _environment(plan, served_name)
        try:
            private_folder(plan.log_path.parent)
            with os.fdopen(open_private(plan.log_path, os.O_WRONLY | os.O_TRUNC), "wb") as log:
                self._popen = subprocess.Popen(
                    argv if forks is None else forks.command_line(argv),
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=() if forks is None else forks.passed_fds,
                )
        except OSError as error:
            raise PreflightError(f"cannot start {argv[0]} (log {plan.log_path}): {error}") from None
        self.pid = self._popen.pid

    def exit_code(self) -> int | None:
        """Return how the process ended (negative: by that signal), or None while it lives."""
        if self._popen.returncode is not None:
            return self._popen.returncode
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def stop(self) -> None:
        """TERM once to the server, which stops its workers; KILL what is left of the launch."""
        started_s = time.monotonic()
        if self.exit_code() is None:
            os.kill(self.pid, signal.SIGTERM)
            wait_until(lambda: self.exit_code() is not None, self._grace_s)
        left_s = self._grace_s - (time.monotonic() - started_s)
        wait_until(self._nothing_left, min(_ORPHANS_S, max(left_s, 0.0)))
        os.killpg(self.pid, signal.SIGKILL)
        try:
            stop_tagged(self._run_tag, launch_tag=self._launch_tag, grace_s=0)
            self._popen.wait()
        finally:  # one that cannot be killed writes no more either
            self._popen.poll()  # it may be a worker
            with suppress(OSError):  # it wrote what it liked
                take_secrets_out_of(self._log_path, self._environment)

    def _nothing_left(self) -> bool:
        return not tagged_processes(self._run_tag, launch_tag=self._launch_tag)


def _environment(plan: LaunchPlan, launch_tag: str) -> dict[str, str]:
    chosen = {**plan.server.environment, **plan.configuration.environment}
    return {
        **os.environ,
        "PYTHONUNBUFFERED": "1",  # the last lines before a crash are the ones to read
        **{name: str(int(v)) if isinstance(v, bool) else str(v) for name, v in chosen.items()},
        **tag_environment(plan.run_tag, launch_tag),
    }


async def _until_ready(server: RunningServer, plan: LaunchPlan) -> None:
    deadline_s = time.monotonic() + plan.startup_deadline_s
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PROBE_S)) as session:
        while server.exit_code() is None:
            names = await served_names(server.api, session, server.base_url)
            if names is not None and server.served_name in names:
                return
            if names is not None:
                raise LaunchFailedError(_stranger(server, names))
            if time.monotonic() >= deadline_s:
                raise LaunchFailedError(_diagnosed(server, plan, timed_out=True))
            await asyncio.sleep(_POLL_S)
    raise LaunchFailedError(_diagnosed(server, plan, timed_out=False))


async def served_names(
    api: HttpApi, session: aiohttp.ClientSession, base_url: str
) -> tuple[str, ...] | None:
    """Return the models served at `base_url`, or None while it is not ready."""
    if not await api.is_ready(session, base_url):
        return None
    try:
        return await api.models(session, base_url)
    except ServerUnreachableError:
        return None


def _stranger(server: RunningServer, names: tuple[str, ...]) -> Failure:
    return Failure(
        FailureKind.INFRASTRUCTURE,
        f"another server answers on {server.base_url}: it serves {', '.join(names) or 'no model'} "
        f"instead of {server.served_name}",
        server.log_path,
    )


def _diagnosed(server: RunningServer, plan: LaunchPlan, *, timed_out: bool) -> Failure:
    log_text = read_log(server.log_path)
    failure = plan.server.log.diagnose_launch(log_text, server.exit_code(), timed_out)
    reason = without_secrets(failure.reason, _environment(plan, ""))
    return replace(failure, reason=reason, log_path=server.log_path)


async def _to_the_end(stop: Callable[[], None]) -> None:
    """Run `stop` in a thread and wait for its end, even if cancelled meanwhile."""
    task = asyncio.ensure_future(asyncio.to_thread(stop))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
