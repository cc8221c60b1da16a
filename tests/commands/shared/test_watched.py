"""A watched run ends as its work does, and with a sentence where a library ends its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from helpers.alive import ends

SCRIPT = """
import atexit, os, signal, sys, time
from tuner.cli import _end
from tuner.commands.shared import watched as module
from tuner.commands.shared.watched import watched
from tuner.errors import InterruptedBySignalError, OperatorNeededError, PreflightError, TunerError

module._LEAVE_S = 1.0

def interrupted(number, _):
    raise InterruptedBySignalError(number)

def work():
    signal.signal(signal.SIGTERM, interrupted)
    print(os.getpid(), flush=True)
    {work}

try:
    with watched("the library did it"):
        work()
except (TunerError, InterruptedBySignalError) as error:
    _end(error)
"""


def started(work: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", SCRIPT.format(work=work)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("work", "code", "sentence"),
    [
        ("pass", 0, ""),
        ("raise PreflightError('no GPU')", 3, "tuner: no GPU\n"),
        ("os._exit(1)", 5, "tuner: the library did it\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, ""),
        ("atexit.register(os._exit, 1)", 0, ""),  # while it left the cluster
        ("atexit.register(time.sleep, 600)", 0, ""),
        ("atexit.register(os._exit, 1); raise PreflightError('no GPU')", 3, "tuner: no GPU\n"),
    ],
)
def test_it_ends_as_its_work(work: str, code: int, sentence: str) -> None:
    run = started(work)
    _, told = run.communicate(timeout=60)
    assert (run.returncode, told) == (code, sentence)


def test_a_bug_is_no_loss_of_a_cluster() -> None:
    run = started("raise RuntimeError('a bug')")
    _, told = run.communicate(timeout=60)
    assert run.returncode == 1 and "a bug" in told and "the library" not in told


def test_a_signal_reaches_the_work() -> None:
    run = started("time.sleep(60)")
    assert run.stdout is not None
    run.stdout.readline()
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM


def test_the_work_dies_with_the_process_that_watches() -> None:
    run = started("time.sleep(60)")
    assert run.stdout is not None
    child = int(run.stdout.readline())
    assert child != run.pid
    os.kill(run.pid, signal.SIGKILL)
    run.wait(60)
    assert ends(child, within_s=10.0)
    run.communicate()
