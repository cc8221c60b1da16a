from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tuner.load.importers.import_workload import import_workload
from tuner.load.summary import summarize
from tuner.load.workload import load_workload
from tuner.report.terminal.workload_tables import preview_workload, show_workload, workload_json


@pytest.fixture
def text_trace(tmp_path: Path) -> Path:
    source = tmp_path / "t.jsonl"
    source.write_text('{"prompt": "hello you", "max_tokens": 3}\n' * 2)
    import_workload(source, "jsonl", tmp_path / "mine.yaml", None)
    return tmp_path / "mine.yaml"


def as_json(name: str) -> dict[str, Any]:
    workload = load_workload(name)
    return workload_json(workload, summarize(workload))


def preview(name: str, requests: int) -> str:
    console, workload = printer(), load_workload(name)
    preview_workload(console, workload, summarize(workload, requests))
    return text(console)


def printer() -> Console:
    return Console(file=io.StringIO(), width=80)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_show_as_json() -> None:
    shown = as_json("chat")
    assert shown["kind"] == "synthetic"
    assert shown["sha256"] == load_workload("chat").sha256
    assert shown["load"] == {"concurrency": 64, "arrivals": "poisson"}
    assert shown["trace_requests"] is None
    assert shown["summary"]["prompt_tokens"]["p50"] == pytest.approx(1020, rel=0.05)
    assert shown["summary"]["shared_prompt_share"] == 0.0


def test_show_a_text_trace_as_json(text_trace: Path) -> None:
    shown = as_json(str(text_trace))
    assert (shown["name"], shown["kind"], shown["trace_requests"]) == ("mine", "text trace", 2)
    assert shown["summary"]["requests"] == 2
    assert shown["summary"]["prompt_tokens_estimated"] is True
    assert shown["summary"]["shared_prompt_share"] is None


@pytest.mark.parametrize("name", ["chat", "code", "reasoning", "smoke"])
def test_show_names_what_is_sent(name: str) -> None:
    console, workload = printer(), load_workload(name)
    show_workload(console, workload, summarize(workload))
    for words in (name, workload.sha256, f"{workload.max_request_tokens} tokens", "p99"):
        assert words in text(console)


def test_preview_draws_three_histograms() -> None:
    shown = preview("chat", 300)
    assert "the first 300 requests" in shown
    assert shown.count("█" * 40) == 3
    assert max(map(len, shown.splitlines())) <= 80


def test_preview_of_a_single_request(text_trace: Path) -> None:
    shown = preview(str(text_trace), 1)
    assert "prompt tokens, estimated" in shown
    assert "100.0 %" in shown
