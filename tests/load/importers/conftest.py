from __future__ import annotations

from pathlib import Path

import pytest
from helpers.trace_samples import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(content: str | bytes) -> Path:
        path = tmp_path / "source"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make
