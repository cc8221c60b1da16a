"""The lines that set limits do so, and put back what they found."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest
from helpers.studies import wait_for

from tuner.report.exports import limits
from tuner.report.exports.deployment import Deployment


def state(gpus: Path) -> list[tuple[str, str, str | None]]:
    def read(name: str) -> str | None:
        path = gpus / name
        return path.read_text().strip() if path.exists() else None

    return [
        (read(f"{n}.limit") or "", read(f"{n}.persistence") or "", read(f"{n}.clocks"))
        for n in (0, 1)
    ]


FOUND = [("700.00", "Disabled", None), ("650.00", "Enabled", None)]
SET = [("400", "Enabled", "1410,1410")] * 2


def run(gpus: Path, text: str) -> int:
    environment = {"PATH": f"{gpus / 'bin'}:/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", text], env=environment, check=False, timeout=20)
    return done.returncode


@pytest.fixture
def here(awkward: Deployment, gpus: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.setattr(limits, "found_folder", lambda _: str(gpus / "found"))
    monkeypatch.setattr(limits, "READY_FILE", str(gpus / "ready"))
    return awkward


@pytest.mark.parametrize("between", [" ", "\n"])
def test_set_and_put_back(here: Deployment, gpus: Path, between: str) -> None:
    assert state(gpus) == FOUND
    assert run(gpus, between.join(limits.note_and_set(here, "0 1"))) == 0
    assert state(gpus) == SET
    assert run(gpus, between.join(limits.put_back(here))) == 0
    assert state(gpus) == FOUND
    assert list((gpus / "found").iterdir()) == []


def test_what_was_found_first_is_put_back_after_a_crash_too(here: Deployment, gpus: Path) -> None:
    for _ in range(2):  # the second start finds the limits that the first one set
        assert run(gpus, "\n".join(limits.note_and_set(here, limits.ALL_GPUS))) == 0
    run(gpus, "\n".join(limits.put_back(here)))
    assert state(gpus) == FOUND


def test_what_cannot_be_put_back_stays_noted_and_is_said(here: Deployment, gpus: Path) -> None:
    run(gpus, "\n".join(limits.note_and_set(here, "0 1")))
    (gpus / "broken").touch()
    assert run(gpus, "\n".join(limits.put_back(here))) != 0
    assert len(list((gpus / "found").iterdir())) == 2
    (gpus / "broken").unlink()
    assert run(gpus, "\n".join(limits.put_back(here))) == 0
    assert state(gpus) == FOUND


def test_clocks_that_stay_locked_do_not_keep_the_power_limit(here: Deployment, gpus: Path) -> None:
    run(gpus, "\n".join(limits.note_and_set(here, "0 1")))
    (gpus / "broken-clocks").touch()
    assert run(gpus, "\n".join(limits.put_back(here))) != 0
    assert [(limit, persistence) for limit, persistence, _ in state(gpus)] == [
        (limit, persistence) for limit, persistence, _ in FOUND
    ]
    assert len(list((gpus / "found").iterdir())) == 2  # and is tried again


def test_a_limit_that_is_refused_fails_the_start(here: Deployment, gpus: Path) -> None:
    (gpus / "broken").touch()
    assert run(gpus, "\n".join(limits.note_and_set(here, "0 1"))) != 0


def test_a_container_holds_them_until_it_is_stopped(here: Deployment, gpus: Path) -> None:
    with (gpus / "said").open("w") as said:
        holder = subprocess.Popen(
            ["/bin/sh", "-c", "\n".join(limits.hold(here, limits.ALL_GPUS))],
            env={"PATH": f"{gpus / 'bin'}:/usr/bin:/bin", "CHECK_EVERY_S": "0.05"},
            start_new_session=True,
            stdout=said,
        )
    try:
        wait_for(lambda: (gpus / "ready").exists(), 20)
        assert state(gpus) == SET
        # a driver's reload, or another hand; while the driver is away, it is waited for
        (gpus / "broken").touch()
        (gpus / "0.limit").write_text("700.00\n")
        (gpus / "1.clocks").unlink()
        wait_for(lambda: "could not be set" in (gpus / "said").read_text(), 20)
        (gpus / "broken").unlink()
        wait_for(lambda: state(gpus) == SET, 20)
        assert "GPU 0 is at Enabled, 700.00; its limits" in (gpus / "said").read_text()
        holder.send_signal(signal.SIGTERM)
        assert holder.wait(20) == 0
        assert state(gpus) == FOUND
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(holder.pid, signal.SIGKILL)  # its `sleep`, too
        holder.wait()
