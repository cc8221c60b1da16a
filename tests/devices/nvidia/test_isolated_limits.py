"""The status of a machine on which one GPU hangs."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.nvml_standin import Standin

from tuner.devices.leases.lease_book import LeaseBook
from tuner.devices.open import isolated_limits
from tuner.host import state_folder
from tuner.host.state_folder import state_folders
from tuner.report.terminal.gpu_table import machine_status, status_json


@pytest.mark.parametrize("function", ["nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetUUID"])
def test_a_gpu_that_hangs_does_not_hide_the_others(
    standin: Standin, tmp_path: Path, function: str
) -> None:
    standin.device(0).hang(function)
    found = machine_status(isolated_limits(deadline_s=1.0), LeaseBook(tmp_path))
    hangs, answers = found.gpus
    assert (answers.uuid, answers.power_limit_w) == (standin.device(1).uuid, 700.0)
    assert answers.problem is None
    assert hangs.power_limit_w is None
    assert hangs.problem is not None and "not answer" in hangs.problem
    assert status_json(found)["gpus"][0]["problem"] == hangs.problem


def test_without_a_driver_there_is_nothing_to_ask(no_real_nvml: None) -> None:
    assert isolated_limits() is None


def test_a_restore_with_sudo_sees_what_the_user_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, roots = tmp_path / "home", tmp_path / "root"
    (home / ".local/state/tuner").mkdir(parents=True)
    monkeypatch.delenv("TUNER_STATE_DIR")
    monkeypatch.setattr(state_folder, "_ROOTS", roots)
    monkeypatch.setattr(state_folder.os, "geteuid", lambda: 0)
    monkeypatch.setattr(
        state_folder.pwd, "getpwnam", lambda _: type("Entry", (), {"pw_dir": str(home)})
    )
    monkeypatch.setenv("SUDO_USER", "somebody")
    assert state_folders() == (roots, home / ".local/state/tuner")
    monkeypatch.delenv("SUDO_USER")
    assert state_folders() == (roots,)


def test_without_sudo_a_run_of_roots_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNER_STATE_DIR")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "own"))
    monkeypatch.setattr(state_folder.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(state_folder, "_ROOTS", tmp_path / "root")
    assert state_folders() == (tmp_path / "own" / "tuner",)
    (tmp_path / "root").mkdir()
    assert state_folders() == (tmp_path / "own" / "tuner", tmp_path / "root")


def test_a_folder_that_was_named_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_STATE_DIR", "/somewhere")
    assert state_folders() == (Path("/somewhere"),)
