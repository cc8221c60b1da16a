"""Machines that are made up: folders that look like `/proc` and `/sys`, GPUs of the stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.nvml_standin import Standin

from tuner.doctor.host import Host


@pytest.fixture
def host(tmp_path: Path) -> Callable[..., Host]:
    """Make a machine of these files."""

    def make(files: dict[str, str] | None = None) -> Host:
        root = tmp_path / "root"
        for name, text in (files or {}).items():
            path = root / name.removeprefix("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        return Host(root)

    return make


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    """One H100, found by every process that is started from here."""
    made = Standin.create(tmp_path / "nvml.state")
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    yield made
    made.mend()
    made.device(0).mend()
