from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from helpers.job_cases import Make, made_job


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return partial(made_job, str(tmp_path / "none.db"))
