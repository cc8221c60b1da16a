from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuner.load.import_workload import import_workload
from tuner.load.workload import load_workload
from tuner.report.workloads import preview_workload, show_workload


@pytest.fixture
def text_trace(tmp_path: Path) -> Path:
    source = tmp_path / "t.jsonl"
    source.write_text('{"prompt": "hello you", "max_tokens": 3}\n' * 2)
    import_workload(source, "jsonl", tmp_path / "mine.yaml", None)
    return tmp_path / "mine.yaml"


def test_show_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    show_workload("chat", as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert shown["kind"] == "synthetic"
    assert shown["sha256"] == load_workload("chat").sha256
    assert shown["load"] == {"concurrency": 64, "arrivals": "poisson"}
    assert shown["trace_requests"] is None
    assert shown["summary"]["prompt_tokens"]["p50"] == pytest.approx(1020, rel=0.05)
    assert shown["summary"]["shared_prompt_share"] == 0.0


def test_show_a_text_trace_as_json(text_trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show_workload(str(text_trace), as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["kind"], shown["trace_requests"]) == ("mine", "text trace", 2)
    assert shown["summary"]["requests"] == 2
    assert shown["summary"]["prompt_tokens_estimated"] is True
    assert shown["summary"]["shared_prompt_share"] is None


@pytest.mark.parametrize("name", ["chat", "code", "reasoning", "smoke"])
def test_show_names_what_is_sent(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    show_workload(name, as_json=False)
    shown = capsys.readouterr().out
    workload = load_workload(name)
    for words in (name, workload.sha256, f"{workload.max_request_tokens} tokens", "p99"):
        assert words in shown


def test_preview_draws_three_histograms(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    preview_workload("chat", 300)
    shown = capsys.readouterr().out
    assert "the first 300 requests" in shown
    assert shown.count("█" * 40) == 3
    assert max(map(len, shown.splitlines())) <= 80


def test_preview_of_a_single_request(text_trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preview_workload(str(text_trace), 1)
    shown = capsys.readouterr().out
    assert "prompt tokens, estimated" in shown
    assert "100.0%" in shown
