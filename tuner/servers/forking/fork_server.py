"""Fork server: a process that has imported a server's modules, and is forked for each launch.

It runs in the server's own Python, so it needs nothing beside the standard library. There is one
for each environment, as some variables are read while modules are imported or libraries are
loaded: one for the program itself, others for the processes that it starts with `multiprocessing`.
They end with the tuner, which holds the other end of a pipe.

`start` stands in for the program: it asks for a fork, hands it the signals that it gets, and ends
as it ends. Where no fork is to be had, it becomes the program itself, an ordinary launch.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import importlib
import json
import multiprocessing.spawn
import multiprocessing.util
import os
import re
import resource
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing import popen_spawn_posix
from pathlib import Path
from typing import Any, NoReturn

LAUNCH_TAG = "TUNER_LAUNCH_TAG"
IMPORTED = "tuner-" + 16 * "0"  # the launch tag of fork servers; as long as those of servers
_OWN_PREFIX = "TUNER_"  # variables of ours, which no import reads
_PATH = "PYTHONPATH"  # a fork gets its own
_MOST = 4  # fork servers of a run: each holds some hundred megabytes
_OWN_FDS = 512  # ours are above, so that a fork can have those that it is passed
_SPAWNED = "--multiprocessing-fork"  # among the words of each process that multiprocessing spawns
_SPAWN_MAIN = re.compile(r"from multiprocessing\.spawn import spawn_main; spawn_main\((.*)\)")
_ANSWER_S = 600.0  # longer than imports take on a busy machine
_UNKNOWN_EXIT = 255


class NoForkError(Exception):
    """This process cannot be forked; it has to be started in the ordinary way."""


@dataclass(frozen=True)
class Place:
    """Where the fork servers of a run listen, until when they live, and what they import."""

    folder: str
    alive_fd: int
    modules: Sequence[str]


@dataclass(frozen=True)
class Job:
    """What a fork is to be: a program (a Python script), or a process of multiprocessing."""

    words: Sequence[str]  # from `sys.argv[0]`
    spawned: Mapping[str, int] | None  # arguments of `spawn_main`, called instead of the script
    environment: Mapping[str, str]
    cwd: str
    fds: Sequence[int]  # the numbers that the descriptors have in the fork


class Fork:
    """A process that was forked for us, and is a child of the fork server."""

    def __init__(self, answers: socket.socket, pid: int, pid_fd: int) -> None:
        self.pid = pid
        self._answers = answers
        self._pid_fd = pid_fd

    def send_signal(self, number: int) -> None:
        """Signal this very process, if it lives."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pid_fd, number)

    def wait(self) -> int:
        """Wait for its end; return how it ended (negative: by that signal)."""
        select.select([self._answers], [], [])
        code = self.poll()
        if code is None:  # the fork server was ended before
            select.select([self._pid_fd], [], [])
        return _UNKNOWN_EXIT if code is None else code

    def poll(self) -> int | None:
        """Return how it ended as `wait` does, or None while it lives."""
        if not select.select([self._answers], [], [], 0)[0]:
            return None
        with suppress(OSError):
            if line := self._answers.recv(64):
                return int(line)
        return _UNKNOWN_EXIT if select.select([self._pid_fd], [], [], 0)[0] else None


def asked(place: Place, job: Job, fds: Sequence[int], *, may_import: bool) -> Fork:
    """Have a fork server make a process of a job, with copies of our descriptors.

    `may_import` starts a fork server for an environment that has none. Raises `NoForkError`.
    """
    try:
        connection = _connected(place, job.environment, may_import)
        connection.settimeout(_ANSWER_S)
        message = json.dumps(vars(job)).encode()
        socket.send_fds(connection, [len(message).to_bytes(8, "big")], list(fds))
        connection.sendall(message)
        answer, received, _, _ = socket.recv_fds(connection, 64, 1)
        if not received:
            raise NoForkError("the fork server has ended")
    except (OSError, subprocess.SubprocessError) as error:
        raise NoForkError(str(error)) from error
    connection.settimeout(None)
    return Fork(connection, int(answer), received[0])


def _connected(place: Place, environment: Mapping[str, str], may_import: bool) -> socket.socket:
    name = _key(environment)
    connection = socket.socket(socket.AF_UNIX)
    folder = os.open(place.folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        known = {path.name for path in Path(place.folder).iterdir()}
        if name not in known:
            if known and (not may_import or len(known) >= _MOST):
                raise NoForkError("other variables are set than in the process that has imported")
            _import_in_background(place, folder, name, environment)
        connection.connect(f"/proc/self/fd/{folder}/{name}")  # a whole path may be too long
    finally:
        os.close(folder)
    return connection


def _key(environment: Mapping[str, str]) -> str:
    """Return a name of what an environment may change in the imported modules."""
    counted = {k: v for k, v in environment.items() if k != _PATH and not k.startswith(_OWN_PREFIX)}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:32]


def _import_in_background(
    place: Place, folder: int, name: str, environment: Mapping[str, str]
) -> None:
    """Start a fork server. It takes connections at once, and answers them when it has imported."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{folder}/{name}")
        listener.listen(64)
        fds = (listener.fileno(), place.alive_fd)
        log = os.open(f"{place.folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            subprocess.run(
                [sys.executable, __file__, "import", str(fds[0]), json.dumps(vars(place))],
                env={**environment, LAUNCH_TAG: IMPORTED},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=fds,
                check=True,
            )
        finally:
            os.close(log)


def start(place: Place, argv: Sequence[str]) -> NoReturn:
    """Stand in for a program that a fork server runs; without one, become the program."""
    job = Job(argv, None, dict(os.environ), str(Path.cwd()), (0, 1, 2))
    try:
        fork = asked(place, job, (0, 1, 2), may_import=False)
    except NoForkError:
        os.execv(argv[0], list(argv))  # nosec B606
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: fork.send_signal(received))
    code = fork.wait()
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the fork has written its own
        with suppress(OSError):  # KILL has no other handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def imported(place: Place, listener_fd: int) -> tuple[Place, Job] | None:
    """Import, then make forks until the tuner ends; return None then, and in each fork its job.

    The place beside it is the same one with the fork's own descriptor.
    """
    if os.fork() > 0:  # nobody's child: the process that asked first is stopped with its children
        os._exit(0)
    before = _descriptors()
    for name in place.modules:
        with suppress(ImportError):  # another version; what it needs is imported by the forks
            importlib.import_module(name)
    _title(None)  # finds the memory of the title, which it cannot once variables have changed
    if reason := _unsafe(before):
        sys.stderr.write(f"servers cannot be forked: {reason}\n")
        return None
    return _forking(place, socket.socket(fileno=listener_fd))


def _unsafe(before: set[int]) -> str | None:
    """Say what the imports have done that a fork must not inherit."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "the imports have opened a GPU"
    if threading.active_count() > 1:
        return f"the imports have started {threading.enumerate()}"
    if opened := _descriptors() - before:
        return f"the imports have left files open: {sorted(opened)}"
    if not _retagged(IMPORTED):
        return "its environment has moved, so that its processes could not be found"
    with suppress(OSError):
        os.close(os.pidfd_open(os.getpid()))
        return None
    return "this kernel gives no handles of processes (pidfd_open)"


def _descriptors() -> set[int]:
    """Return the open descriptors, without the one that reads them."""
    return {int(path.name) for path in Path("/proc/self/fd").iterdir() if path.exists()}


def _forking(place: Place, listener: socket.socket) -> tuple[Place, Job] | None:
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    forks: dict[int, socket.socket] = {}
    while True:
        ready = select.select([listener.fileno(), woken, place.alive_fd], [], [])[0]
        if place.alive_fd in ready:
            return None
        if woken in ready:
            os.read(woken, 4096)
            _report_ended(forks)
        if listener.fileno() in ready:
            connection = listener.accept()[0]
            try:
                job, fds = _received(connection)
            except (OSError, ValueError):
                connection.close()
                continue
            pid = os.fork()
            if pid == 0:
                listener.close()
                alive_fd = _take_over(job, connection, fds, place.alive_fd)
                for ours in (connection, *forks.values()):
                    ours.detach()  # their numbers are the fork's now
                return replace(place, alive_fd=alive_fd), job
            forks[pid] = connection
            _answer(connection, pid)
            for descriptor in fds:
                os.close(descriptor)


def _received(connection: socket.socket) -> tuple[Job, list[int]]:
    connection.settimeout(10.0)
    size, fds, _, _ = socket.recv_fds(connection, 8, 250)
    left, parts = int.from_bytes(size, "big"), []
    while left and (part := connection.recv(left)):
        parts.append(part)
        left -= len(part)
    connection.settimeout(None)
    return Job(**json.loads(b"".join(parts))), fds


def _answer(connection: socket.socket, pid: int) -> None:
    pid_fd = os.pidfd_open(pid)  # not reaped yet, so it is this very process
    try:
        with suppress(OSError):  # whoever asked has ended; the tag finds the fork
            socket.send_fds(connection, [str(pid).encode()], [pid_fd])
    finally:
        os.close(pid_fd)


def _report_ended(forks: dict[int, socket.socket]) -> None:
    while forks:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with forks.pop(pid) as connection, suppress(OSError):
            connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _take_over(job: Job, connection: socket.socket, fds: Sequence[int], alive_fd: int) -> int:
    """Give a fork what a process of its own would have: session, tag, descriptors, variables.

    Returns its number of `alive_fd`. Ends it if whoever asked has ended meanwhile: the search for
    the tag was before.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    if not _retagged(job.environment[LAUNCH_TAG]) or select.select([connection], [], [], 0)[0]:
        os._exit(_UNKNOWN_EXIT)
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OWN_FDS) for fd in (alive_fd, *fds)]
    os.closerange(0, _OWN_FDS)
    for descriptor, number in zip(high[1:], job.fds, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(job.cwd)
    before = os.environ.get(_PATH, "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(job.environment)
    sys.path[:] = [folder for folder in sys.path if folder not in before]
    sys.path[:0] = filter(None, os.environ.get(_PATH, "").split(os.pathsep))
    return high[0]


def _retagged(tag: str) -> bool:
    """Write a launch tag over the one in the memory that `/proc` shows; say whether it shows it."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    libc.getenv.argtypes = [ctypes.c_char_p]
    at = libc.getenv(LAUNCH_TAG.encode())
    if at is None or len(tag) != len(IMPORTED):
        return False
    ctypes.memmove(at, tag.encode(), len(tag))
    shown = Path("/proc/self/environ").read_bytes().split(b"\0")
    return f"{LAUNCH_TAG}={tag}".encode() in shown


def _title(title: str | None) -> None:
    """Set what `ps` shows, where the server's Python can; None only prepares for it."""
    with suppress(ImportError):
        setproctitle = importlib.import_module("setproctitle")
        setproctitle.setproctitle(title or setproctitle.getproctitle())


def run(place: Place, job: Job) -> None:
    """Run a fork's job, as Python would have run it."""
    _let_multiprocessing_fork(place)
    sys.argv = list(job.words)
    if job.spawned is not None:
        multiprocessing.spawn.spawn_main(**job.spawned)
        return
    _title(shlex.join(job.words))
    sys.path.insert(0, str(Path(job.words[0]).resolve().parent))
    runpy.run_path(job.words[0], run_name="__main__")


def _let_multiprocessing_fork(place: Place) -> None:
    """Have what multiprocessing would spawn forked, and waited for as what is no child."""
    forks: dict[int, Fork] = {}
    spawn: Any = multiprocessing.util.spawnv_passfds
    poll: Any = popen_spawn_posix.Popen.poll

    def spawned(path: str | bytes, words: Sequence[str], fds: Iterable[int]) -> int:
        passed = (0, 1, 2, *sorted(map(int, fds)))
        try:
            fork = asked(place, _spawned_job(path, words, passed), passed, may_import=True)
        except NoForkError:
            pid: int = spawn(path, words, fds)
            return pid
        forks[fork.pid] = fork
        return fork.pid

    def polled(process: Any, flag: int = os.WNOHANG) -> int | None:
        if process.pid in forks and process.returncode is None:
            fork = forks[process.pid]
            process.returncode = fork.poll() if flag == os.WNOHANG else fork.wait()
        code: int | None = process.returncode if process.pid in forks else poll(process, flag)
        return code

    setattr(multiprocessing.util, "spawnv_passfds", spawned)  # noqa: B010 (private)
    setattr(popen_spawn_posix.Popen, "poll", polled)  # noqa: B010


def _spawned_job(path: str | bytes, words: Sequence[str], fds: Sequence[int]) -> Job:
    """Return the job that a process of multiprocessing is; raises `NoForkError`."""
    is_process = words[-1] == _SPAWNED and os.fsdecode(path) == sys.executable
    main = _SPAWN_MAIN.fullmatch(words[-2]) if is_process else None
    if main is None or fds[-1] >= _OWN_FDS:
        raise NoForkError("no process of multiprocessing, or too many descriptors")
    spawned = {name: int(n) for name, n in (word.split("=") for word in main[1].split(", "))}
    return Job(("-c", _SPAWNED), spawned, dict(os.environ), str(Path.cwd()), fds)


def main() -> None:
    """Do what the first word says."""
    del sys.path[0]  # this folder
    if sys.argv[1] == "start":
        start(Place(**json.loads(sys.argv[2])), sys.argv[3:])
    listener_fd = fcntl.fcntl(int(sys.argv[2]), fcntl.F_DUPFD_CLOEXEC, _OWN_FDS)
    os.close(int(sys.argv[2]))
    fork = imported(Place(**json.loads(sys.argv[3])), listener_fd)
    if fork is None:
        os._exit(0)  # without waiting for a thread that an import has started
    run(*fork)


if __name__ == "__main__":
    main()
