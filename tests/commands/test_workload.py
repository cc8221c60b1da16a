from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.studies import InProcess

from tuner.commands.workload import import_
from tuner.load.importers.registry import TraceFormat


def test_import_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text('{"prompt": "hello", "max_tokens": 3}\n')
    import_(source, tmp_path / "mine.yaml", TraceFormat.JSONL)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"wrote 1 requests to {tmp_path / 'mine.yaml'}" in shown.err


def test_what_ships_is_listed(tmp_path: Path) -> None:
    tuner = InProcess(tmp_path)
    listed = tuner("workload", "list")
    assert listed.returncode == 0 and "chat: " in listed.stdout and "code: " in listed.stdout
    for name in json.loads(tuner("workload", "list", "--format", "json").stdout):
        assert tuner("workload", "show", name).returncode == 0
