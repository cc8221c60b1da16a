"""Fixtures: a store, and the identity of a study."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tuner.records import Source
from tuner.store import Store, StudyIdentity, TrialOwner

IDENTITY = StudyIdentity(
    name="night",
    created_at=datetime(2026, 3, 1, 22, 0, 0, 123456, tzinfo=UTC),
    model="meta-llama/Llama-3.1-8B",
    workload_name="chat",
    workload_sha256="a" * 64,
    space_name="default",
    space_sha256="b" * 64,
    slos=("p99_tpot_ms<=50",),
    objectives=("energy_per_output_token_j", "p99_tpot_ms"),
    evaluation="virtual",
    server_version="emulator",
    gpu="H100",
    driver=None,
    energy_source=Source.EMULATED,
    latency_source=Source.EMULATED,
    budget_trials=40,
    budget_s=None,
    spent_s=0.0,
    spec_json={"seed": 7, "knobs": [{"name": "max_num_seqs", "low": 8}], "x": None},
)
OWNER = TrialOwner(pid=4242, boot_id="b007", host="node", run_tag="r1")


@pytest.fixture
def identity() -> StudyIdentity:
    return IDENTITY


@pytest.fixture
def owner() -> TrialOwner:
    return OWNER


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "tuner.db"


@pytest.fixture
def store(path: Path, identity: StudyIdentity) -> Store:
    opened = Store.open(path, create=True)
    opened.create_study(identity)
    return opened
