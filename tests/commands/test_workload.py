from __future__ import annotations

from pathlib import Path

import pytest

from tuner.commands.workload import import_
from tuner.load.importers.registry import TraceFormat


def test_import_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text('{"prompt": "hello", "max_tokens": 3}\n')
    import_(source, TraceFormat.JSONL, tmp_path / "mine.yaml", None)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"wrote 1 requests to {tmp_path / 'mine.yaml'}" in shown.err
