"""What the kernel says of a process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tuner.host.process_stat import process_stat


def test_this_process_has_a_parent_and_a_start() -> None:
    mine = process_stat(os.getpid())
    assert mine is not None
    assert mine.parent_pid == os.getppid()
    assert mine == process_stat(os.getpid())


def test_a_name_may_hold_brackets_and_blanks() -> None:
    name = "a) b (c"
    code = (
        "import ctypes, time; "
        f"ctypes.CDLL(None).prctl(15, {name.encode()!r}); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        stat = process_stat(child.pid)
        child.kill()
    assert stat is not None
    assert (stat.name, stat.parent_pid) == (name, os.getpid())


def test_the_dead_and_zombies_are_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    end_s = time.monotonic() + 30
    while process_stat(child.pid) is not None and time.monotonic() < end_s:
        time.sleep(0.01)
    assert process_stat(child.pid) is None  # a zombie: nobody has waited for it
    child.wait()
    assert process_stat(child.pid) is None
