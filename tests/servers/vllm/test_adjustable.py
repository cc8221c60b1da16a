"""The launch that lets limits change, and who is blamed where it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.configuration import Configuration
from tuner.servers.vllm.adjustable import VllmLimits, is_about_scheduler


def test_the_server_is_told_where_the_scheduler_and_the_file_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/mine")
    asked = Configuration(flags={"max_num_seqs": 8})
    channel = VllmLimits().open(tmp_path / "live", "trial-0001", asked)
    made = channel.configuration
    assert made.flags == {
        "max_num_seqs": 8,
        "scheduler_cls": "tuner_live_limits.LiveScheduler",
    }
    assert made.environment["PYTHONPATH"] == f"{tmp_path / 'live' / 'trial-0001'}:/mine"
    assert made.environment["TUNER_LIMITS_FILE"] == str(
        tmp_path / "live" / "trial-0001" / "trial-0001.limits"
    )
    assert {p.name for p in (tmp_path / "live" / "trial-0001").iterdir()} == {
        "tuner_live_limits.py",
        "trial-0001.limits",
    }
    channel.close()
    asked = Configuration(environment={"PYTHONPATH": "/theirs"})
    channel = VllmLimits().open(tmp_path / "live", "trial-0002", asked)
    assert (
        channel.configuration.environment["PYTHONPATH"] == f"{tmp_path / 'live/trial-0002'}:/theirs"
    )
    channel.close()


def test_the_server_imports_nothing_that_lay_there(tmp_path: Path) -> None:
    live, victim = tmp_path / "live", tmp_path / "victim"
    (live / "trial-0001").mkdir(parents=True)
    victim.mkdir()
    (victim / "kept").write_text("kept")
    (live / "sitecustomize.py").write_text("planted")
    (live / "trial-0001" / "sitecustomize.py").write_text("planted")
    (live / "trial-0002").symlink_to(victim)
    for name in ("trial-0001", "trial-0002"):
        channel = VllmLimits().open(live, name, Configuration())
        first = channel.configuration.environment["PYTHONPATH"]
        folder = Path(str(first).partition(":")[0])
        assert folder.parent == live
        assert not folder.is_symlink()
        assert {p.name for p in folder.iterdir()} == {"tuner_live_limits.py", f"{name}.limits"}
        channel.close()
    assert (victim / "kept").read_text() == "kept"


def test_objections_to_the_scheduler_are_recognised() -> None:
    assert is_about_scheduler("vllm: error: unrecognized arguments: --scheduler-cls=x")
    assert is_about_scheduler("ModuleNotFoundError: No module named 'tuner_live_limits'")
    assert not is_about_scheduler("No available memory for the cache blocks")


def test_limits_stay_where_drafts_decide_the_tokens_of_a_step() -> None:
    limits = {"max_num_seqs": 8, "max_num_batched_tokens": 2048}
    assert VllmLimits().governs(limits)
    assert not VllmLimits().governs({**limits, "speculative_config.method": "ngram"})
