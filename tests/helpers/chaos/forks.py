"""Tuners forked from a process that has imported the tuner already: half the CPU of a new one.

`ForkServer` is the tests' end, `serve_forks` runs in the process. What the tuner itself starts is
started as ever.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_S = 0.05


def serve_forks(live: Callable[[], None]) -> None:
    """Fork a process for each line of standard input; it calls `live` with the words asked for."""
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        if "pid" in asked:
            pid, status = os.waitpid(asked["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if answer == 0:
                _become(asked)
                live()
                return
        print(json.dumps(answer), flush=True)


def _become(asked: dict[str, Any]) -> None:
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = ["tuner", *asked["words"]]
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for descriptor, path in enumerate(asked["output"], start=1):
        with Path(path).open("wb") as file:
            os.dup2(file.fileno(), descriptor)


class ForkServer:
    """The process, and what was asked of it."""

    def __init__(self, script: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(script), "--fork-server"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started = 0

    def start(self, words: list[str], folder: Path, environment: dict[str, str]) -> Forked:
        """Start `tuner WORDS` there."""
        self._started += 1
        output = [folder / f"{name}.{self._started}.txt" for name in ("out", "err")]
        pid = self.ask(
            words=words,
            folder=str(folder),
            environment=environment,
            output=[str(path) for path in output],
        )
        return Forked(self, pid, *output)

    def ask(self, **asked: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it; what it forked lives on."""
        self._process.communicate()


@dataclass
class Forked:
    """One forked tuner, used as a `subprocess.Popen` is."""

    server: ForkServer
    pid: int
    out: Path
    err: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.server.ask(pid=self.pid)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        end_s = time.monotonic() + timeout if timeout is not None else float("inf")
        while self.poll() is None:
            if time.monotonic() > end_s:
                raise subprocess.TimeoutExpired("tuner", timeout or 0.0, self.err.read_text())
            time.sleep(POLL_S)
        return self.out.read_text(), self.err.read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
