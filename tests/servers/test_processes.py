from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tuner.errors import OperatorNeededError
from tuner.servers import processes
from tuner.servers.processes import (
    LAUNCH_TAG,
    RUN_TAG,
    stop_tagged,
    tag_environment,
    tagged_processes,
    wait_until,
)

SLEEP = ("sleep", "60")


@pytest.fixture
def spawned() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def spawn(
    spawned: list[subprocess.Popen[bytes]],
    *argv: str,
    run_tag: str | None = None,
    launch_tag: str = "",
) -> subprocess.Popen[bytes]:
    tags = tag_environment(run_tag, launch_tag) if run_tag else {}
    process = subprocess.Popen(argv, env={**os.environ, **tags}, start_new_session=True)
    spawned.append(process)
    assert wait_until(lambda: is_loaded(process.pid), 5.0)
    return process


def is_loaded(pid: int) -> bool:
    """While a program is loaded its environment is empty for a moment."""
    try:
        return bool(Path(f"/proc/{pid}/environ").read_bytes())
    except ProcessLookupError:  # a zombie's cannot be read: it has ended already
        return True


def pids(*args: object, **kwargs: object) -> set[int]:
    return {p.pid for p in tagged_processes(*args, **kwargs)}


def test_only_the_run_asked_for_is_found(run_tag, spawned) -> None:
    mine = spawn(spawned, *SLEEP, run_tag=run_tag)
    other = spawn(spawned, *SLEEP, run_tag=run_tag + "-other")
    untagged = spawn(spawned, *SLEEP)
    assert pids(run_tag) == {mine.pid}
    everything = pids()
    assert {mine.pid, other.pid} <= everything
    assert untagged.pid not in everything
    assert stop_tagged(run_tag, grace_s=2.0) == 1
    assert (other.poll(), untagged.poll()) == (None, None)


def test_one_launch_of_a_run_can_be_stopped_alone(run_tag, spawned) -> None:
    one = spawn(spawned, *SLEEP, run_tag=run_tag, launch_tag="one")
    two = spawn(spawned, *SLEEP, run_tag=run_tag, launch_tag="two")
    assert stop_tagged(run_tag, launch_tag="one", grace_s=2.0) == 1
    assert one.wait() == -signal.SIGTERM
    assert pids(run_tag) == {two.pid}
    stop_tagged(run_tag, grace_s=0)
    assert two.wait() == -signal.SIGKILL


def test_nothing_to_stop(run_tag) -> None:
    assert stop_tagged(run_tag, grace_s=5.0) == 0


def test_a_zombie_is_no_living_process(run_tag, spawned) -> None:
    process = spawn(spawned, "true", run_tag=run_tag)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{process.pid}").exists()
    assert pids(run_tag) == set()
    assert stop_tagged(run_tag, grace_s=1.0) == 0


def test_the_zombie_of_a_living_process_is_not_waited_for(run_tag, spawned) -> None:
    parent = spawn(spawned, "sh", "-c", "true & exec sleep 60", run_tag=run_tag)
    assert wait_until(lambda: "sleep" in {p.name for p in tagged_processes(run_tag)}, 5.0)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    assert wait_until(lambda: pids(run_tag) == {parent.pid}, 5.0)
    assert children.read_text().split()  # it is still there, and dead
    assert stop_tagged(run_tag, grace_s=1.0) == 1


def test_a_descendant_that_dropped_its_environment_is_found(run_tag, spawned) -> None:
    parent = spawn(spawned, "sh", "-c", "env -i sleep 60 & wait", run_tag=run_tag)
    assert wait_until(lambda: len(pids(run_tag)) == 2, 5.0)
    assert parent.pid in pids(run_tag)
    assert stop_tagged(run_tag, grace_s=0) == 2


def test_term_is_sent_once_and_to_the_top_of_the_tree_alone(run_tag, spawned, tmp_path) -> None:
    script = (
        "import os, signal, sys, time\n"
        "path = sys.argv[1] + ('/child' if os.fork() == 0 else '/top')\n"
        "log = open(path, 'ab', buffering=0)\n"
        "signal.signal(signal.SIGTERM, lambda *_: log.write(b'TERM '))\n"
        "log.write(b'up ')\n"
        "while True: time.sleep(10)\n"
    )
    spawn(spawned, sys.executable, "-IS", "-c", script, str(tmp_path), run_tag=run_tag)
    files = [tmp_path / "top", tmp_path / "child"]
    assert wait_until(lambda: all(f.exists() and "up" in f.read_text() for f in files), 10.0)
    began_s = time.monotonic()
    assert stop_tagged(run_tag, grace_s=0.5) == 2
    assert time.monotonic() - began_s >= 0.5
    assert [f.read_text() for f in files] == ["up TERM ", "up "]


def test_a_process_never_stops_itself(run_tag, spawned) -> None:
    script = (
        "import sys\n"
        "from tuner.servers.processes import stop_tagged\n"
        "sys.exit(10 + stop_tagged(sys.argv[1], grace_s=1.0))\n"
    )
    sleeper = spawn(spawned, *SLEEP, run_tag=run_tag)
    stopper = spawn(spawned, sys.executable, "-c", script, run_tag, run_tag=run_tag)
    assert stopper.wait(20) == 11
    assert sleeper.wait() == -signal.SIGTERM


def test_a_recycled_pid_is_left_alone(run_tag, spawned) -> None:
    process = spawn(spawned, *SLEEP, run_tag=run_tag)
    (found,) = tagged_processes(run_tag)
    stale = replace(found, start_ticks=found.start_ticks - 1)
    processes._signal_each([stale], signal.SIGKILL)
    time.sleep(0.1)
    assert process.poll() is None
    processes._signal_each([found], signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    processes._signal_each([found], signal.SIGKILL)  # gone: nothing happens


def test_a_process_that_survives_kill_needs_an_operator(run_tag, spawned, monkeypatch) -> None:
    monkeypatch.setattr(processes, "_KILL_DEADLINE_S", 0.2)
    monkeypatch.setattr(processes, "_signal_each", lambda *_: None)  # as in a hung driver call
    process = spawn(spawned, *SLEEP, run_tag=run_tag)
    with pytest.raises(OperatorNeededError, match=rf"sleep \(pid {process.pid}\) cannot be killed"):
        stop_tagged(run_tag, grace_s=0)
    process.kill()
    process.wait()


def test_a_name_with_brackets_is_read(run_tag, spawned, tmp_path) -> None:
    odd = tmp_path / "a) b (c"
    odd.symlink_to("/bin/sleep")
    spawn(spawned, str(odd), "60", run_tag=run_tag)
    assert wait_until(lambda: [p.name for p in tagged_processes(run_tag)] == ["a) b (c"], 5.0)
    (found,) = tagged_processes(run_tag)
    assert found.parent_pid == os.getpid()
    stop_tagged(run_tag, grace_s=1.0)


def test_the_tags_are_inherited_and_survive_a_changed_title() -> None:
    tags = tag_environment("run", "launch")
    assert (tags[RUN_TAG], tags[LAUNCH_TAG], tags["SPT_NOENV"]) == ("run", "launch", "1")
