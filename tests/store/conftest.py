"""Fixtures: a store, and the identity of a study."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.stored_runs import EMULATED_NIGHT, WRITER

from tuner.store import Store, StudyIdentity, TrialOwner


@pytest.fixture
def identity() -> StudyIdentity:
    return EMULATED_NIGHT


@pytest.fixture
def owner() -> TrialOwner:
    return WRITER


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "tuner.db"


@pytest.fixture
def store(path: Path, identity: StudyIdentity) -> Store:
    opened = Store.open(path, create=True)
    opened.create_study(identity)
    return opened
