from pathlib import Path

import pytest

from tuner.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "tuner.db", create=True)
