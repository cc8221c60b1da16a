from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.errors import PreflightError
from tuner.store import study_lock
from tuner.store.lock.file_lock import lock_path
from tuner.store.lock.study_lock import study_holder

HOLDER = """
import sys, time
from tuner.store.lock.study_lock import study_lock
with study_lock(sys.argv[1], "night"):
    print("held", flush=True)
    time.sleep(60)
"""

PARENT = """
import subprocess, sys, time
from tuner.store.lock.study_lock import study_lock
with study_lock(sys.argv[1], "night"):
    child = subprocess.Popen(["sleep", "60"], close_fds=sys.argv[2] == "1", stdout=2)
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tuner.db"


def test_a_second_writer_is_told_who_holds_the_study(path: Path) -> None:
    with (
        study_lock(path, "night"),
        pytest.raises(PreflightError, match=rf"'night' is being run by process {os.getpid()}"),
        study_lock(f"sqlite:///{path}", "night"),
    ):
        pass


def test_studies_of_one_store_are_locked_apart(path: Path) -> None:
    with study_lock(path, "a/b \u2603"), study_lock(path, "c"):
        assert lock_path(path, "c").exists()


def test_nothing_is_left_after_release_and_it_can_be_taken_again(path: Path) -> None:
    for _ in range(3):
        with study_lock(path, "night"):
            pass
    assert list(path.parent.iterdir()) == []


def test_an_error_inside_releases_it(path: Path) -> None:
    with pytest.raises(RuntimeError), study_lock(path, "night"):
        raise RuntimeError
    with study_lock(path, "night"):
        pass


def test_a_killed_holder_releases_it(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(PreflightError, match=f"process {holder.pid};"),
            study_lock(path, "night"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with study_lock(path, "night"):
            pass


@pytest.mark.parametrize("close_fds", [True, False])
def test_a_child_that_outlives_its_killed_holder_does_not_keep_it(
    path: Path, close_fds: bool
) -> None:
    command = [sys.executable, "-c", PARENT, str(path), str(int(close_fds))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        holder.kill()
        holder.wait()
        try:
            with study_lock(path, "night"):
                os.kill(child, 0)  # it lives
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with (
        pytest.raises(PreflightError, match="cannot lock study 'night'"),
        study_lock(tmp_path / "f" / "t.db", "night"),
    ):
        pass


def test_the_holder_is_known_without_holding_anything(path: Path) -> None:
    assert study_holder(path, "night") is None
    with study_lock(path, "night"):
        assert study_holder(path, "night") == f"process {os.getpid()}"
        assert study_holder(path, "other") is None
    lock_path(path, "night").write_text("1\nnight\n")  # left by a killed one
    assert study_holder(path, "night") is None
    with study_lock(path, "night"):
        pass


def test_it_holds_on_a_full_disk_too(path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with (
            study_lock(path, "night"),
            pytest.raises(PreflightError, match="process that is just starting"),
            study_lock(path, "night"),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_runs_that_begin_at_once_on_a_new_store(path: Path) -> None:
    """Optuna makes its tables without a lock: two of three failed with "already exists"."""
    script = (
        "import sys\nfrom tuner.store import Store\n"
        "store = Store.open(sys.argv[1], create=True)\nsys.stdin.read(1)\n"
        "store.optuna_storage().get_all_studies()\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    begun = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(3)]
    for process in begun:  # all at once, when they have imported what takes long
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait(60) for process in begun] == [0, 0, 0]
    assert [found.name for found in path.parent.iterdir()] == [path.name]
