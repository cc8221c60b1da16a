"""A terminal that is closed in mid-run: all is put back, and the exit code is the signal's."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.studies import CommandLine


def test_a_closed_terminal_gives_129(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Break 20: everything was put back, and the exit code was 1."""
    tuner = CommandLine(tmp_path)
    ours, theirs = pty.openpty()
    words = (
        *("run", "--emulate", "H100-SXM", "--model", "meta-llama/Llama-3.1-8B-Instruct"),
        *("--workload", "chat", "--request-rate", "4", "--space", "power", "--sampler", "random"),
        *("--slo", "p99_tpot_ms<=25", "--trials", "3000", "--study", "night", "--no-confirm"),
        *("--max-window-s", "40"),
    )
    run = subprocess.Popen(
        [sys.executable, "-m", "tuner", *words],
        cwd=tmp_path,
        env={**os.environ, "TUNER_STATE_DIR": str(tmp_path / "state"), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    request.addfinalizer(run.kill)
    os.set_blocking(ours, False)
    deadline_s = time.monotonic() + 60.0
    said = b""
    while len(tuner.trials("night")) < 2 and time.monotonic() < deadline_s:
        time.sleep(0.2)
        with suppress(OSError):
            said += os.read(ours, 1 << 16)  # or it would wait for its reader
        assert run.poll() is None, said.decode()
    os.close(ours)  # every write fails from now on
    os.kill(run.pid, signal.SIGHUP)  # as the kernel does to the leader of the terminal's session
    assert run.wait(60) == 128 + signal.SIGHUP
