"""Whether a process still runs, and which ones do."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def ends(pid: int, within_s: float) -> bool:
    """Wait for a process to end; say whether it did."""
    end_s = time.monotonic() + within_s
    while lives(pid):
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True


def wait_until_stopped(pid: int, deadline_s: float = 5.0) -> None:
    """Wait until SIGSTOP has reached every thread."""
    end_s = time.monotonic() + deadline_s
    tasks = Path(f"/proc/{pid}/task")
    while any("\nState:\tT" not in (t / "status").read_text() for t in tasks.iterdir()):
        assert time.monotonic() < end_s, f"{pid} does not stop"
        time.sleep(0.01)


def processes_with(
    variable: str, value: str, has: Callable[[list[str]], bool] = bool
) -> list[psutil.Process]:
    """Return the processes that were started with a variable of this value, and `has` these words.

    A process that has ended has none.
    """
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it may have ended meanwhile
            words = process.cmdline()
            if process.environ().get(variable) == value and words and has(words):
                found.append(process)
    return found


def runs_processes(state: Path | str, *words: str) -> list[psutil.Process]:
    """Return the processes of runs with this state folder; with words, those that name one."""
    return processes_with(
        "TUNER_STATE_DIR",
        str(state),
        lambda line: not words or any(word in " ".join(line) for word in words),
    )
