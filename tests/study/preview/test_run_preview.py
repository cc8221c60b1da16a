"""A dry run says what a run does: its bounds hold for the run itself, and nothing is changed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from helpers.studies import InProcess

MODEL = ["--emulate", "H100-SXM", "--model", "Qwen/Qwen3-8B"]
STUDY = [*MODEL, "--workload", "chat", "--request-rate", "4", "--max-window-s", "20"]
SLO = ["--slo", "p99_tpot_ms<=60"]


@pytest.fixture
def tuner(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


def test_a_dry_run_leaves_nothing(tuner: InProcess) -> None:
    shown = tuner("run", *STUDY, *SLO, "--trials", "4", "--space", "power", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert list(tuner.folder.iterdir()) == []
    text = " ".join(shown.stdout.split())
    for says in (
        "max_num_seqs: 8 to 1024 (changed in the running server)",
        "power_limit_w: 200 to 700 (a GPU's setting)",
        "emulated H100-SXM; no real GPU is touched",
        "a launch 2 min (assumed)",
        "evaluations 4,",
        "at most 12, beside the default's",
    ):
        assert says in text


def test_it_says_that_servers_are_forked(tuner: InProcess) -> None:
    words = ["--model", "Qwen/Qwen3-8B", *SLO, "--trials", "4", "--dry-run"]
    says = "those of the search are forked"
    for asked, is_said in (("--fork-servers", True), ("--no-fork-servers", False)):
        shown = tuner("run", *words, asked)
        assert shown.returncode == 0, shown.stderr
        assert (says in " ".join(shown.stdout.split())) is is_said


def test_windows_of_long_answers_are_longer_and_it_says_why(tuner: InProcess) -> None:
    words = [*MODEL, "--workload", "reasoning", "--request-rate", "0.3", "--slo", "p99_tpot_ms<=15"]
    shown = tuner("run", *words, "--hours", "8", "--dry-run")
    assert "windows last 340 s, not 180" in " ".join(shown.stdout.split())


def test_its_bounds_hold_for_the_run(tuner: InProcess) -> None:
    """And a study begun prints the same summary."""
    words = [*MODEL, *SLO, "--request-rate", "0.5", "--space", "power", "--yes", "--no-confirm"]
    asked = [*words, "--hours", "0.6", "--max-window-s", "90", "--sampler", "random"]
    said = json.loads(tuner("run", *asked, "--dry-run", "--format", "json").stdout)
    done = tuner("run", *asked)
    assert "evaluations" in done.stderr and "(a GPU's setting)" in done.stderr
    fewest, most = said["evaluations"]
    (study,) = json.loads(tuner("list", "--format", "json").stdout)
    assert fewest <= study["trials_measured"] + study["trials_failed"] <= most
    assert said["lasts_s"][0] <= study["spent_s"] <= 1.05 * said["lasts_s"][1]
    again = json.loads(tuner("run", *asked, "--dry-run", "--format", "json").stdout)
    assert again["launch_is_measured"] and not said["launch_is_measured"]
    assert again["evaluations"][1] - again["evaluations"][0] < most - fewest


def test_short_hours_end_in_time_and_say_that_nothing_is_confirmed(tuner: InProcess) -> None:
    words = [*MODEL, *SLO, "--request-rate", "0.5", "--space", "power", "--yes"]
    asked = [*words, "--hours", "0.4", "--max-window-s", "60", "--sampler", "random"]
    shown = " ".join(tuner("run", *asked, "--dry-run").stdout.split())
    assert "too little to confirm anything: take --hours 1.4" in shown
    done = tuner("run", *asked)
    (study,) = json.loads(tuner("list", "--format", "json").stdout)
    assert study["spent_s"] <= 1.02 * 0.4 * 3600.0
    assert "unconfirmed" in tuner("recommend").stdout, done.stderr


def test_settings_of_real_gpus_are_named_only_where_they_are_changed(tuner: InProcess) -> None:
    real = ["--model", "Qwen/Qwen3-8B", "--hours", "8", "--space", "power", "--dry-run"]
    allowed = tuner("run", *real, "--allow-gpu-settings")
    text = " ".join(allowed.stdout.split())
    assert "power_limit_w and sm_clock_mhz are changed, and put back at the end" in text
    assert re.search(r"ends between \w+ \d\d:\d\d and \w+ \d\d:\d\d UTC", text)
    untouched = tuner("run", *real[:4], "--space", "default", "--dry-run")
    assert "no setting of theirs is changed" in " ".join(untouched.stdout.split())
    cards = tuner("run", *real[:4], "--space", "default", "--cards", "2", "--dry-run")
    assert "1 on each of 2 cards; no setting of theirs" in " ".join(cards.stdout.split())


def test_a_group_that_the_user_is_not_in_is_refused_before_the_run(
    tuner: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "getegid", lambda: 100_000)
    monkeypatch.setattr(os, "geteuid", lambda: 100_000)
    words = ("run", *STUDY, *SLO, "--trials", "4", "--readable-by", "nogroup")
    would, started = tuner(*words, "--dry-run"), tuner(*words)
    assert would.returncode == started.returncode == 3
    assert "--readable-by nogroup: cannot give 'results' to that group" in would.stderr
    assert "be a member of it, or run as root" in would.stderr
    assert started.stderr == would.stderr
    assert list(tuner.folder.iterdir()) == []


def test_a_dry_run_refuses_a_store_or_a_name_as_the_run_does(tuner: InProcess) -> None:
    words = ("run", *STUDY, *SLO, "--trials", "1", "--no-confirm", "--no-checks", "--study", "one")
    assert tuner(*words).returncode == 0
    (tuner.folder / "empty.db").touch()
    assert tuner(*words, "--dry-run", "--store", "empty.db").returncode == 0
    for more, code, says in (
        ([], 2, "there is a study 'one' already"),
        (["--store", "results"], 3, "the store 'results' is a folder"),
        (["--store", "mysql://x/y"], 2, "is no store"),
    ):
        would, done = tuner(*words, *more, "--dry-run"), tuner(*words, *more)
        assert would.returncode == done.returncode == code
        assert says in would.stderr and would.stderr in done.stderr


def test_a_dry_run_refuses_what_the_run_would(tuner: InProcess) -> None:
    for words, says in (
        (["--space", "nope"], "unknown search space"),
        (["--trials", "4", "--notify", "ftp://x"], "--notify"),
        (["--space", "diffusion"], "unknown emulated flag 'request_batch_max_wait_ms'"),
        (["--space", "cpu-smoke"], "unknown emulated flag"),
        (["--readable-by", "no-such-group"], "this machine has no such group"),
    ):
        refused = tuner("run", *STUDY, *SLO, "--trials", "4", *words, "--dry-run")
        assert refused.returncode == 2 and says in refused.stderr
