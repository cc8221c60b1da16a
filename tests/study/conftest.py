from pathlib import Path

import pytest
from helpers.clients import a_client_that_keeps_up

from tuner.store import Store

__all__ = ["a_client_that_keeps_up"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "tuner.db", create=True)
