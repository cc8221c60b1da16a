from pathlib import Path

import pytest

from tuner.load.client.drive import DriveReport
from tuner.measurement import load_run as live
from tuner.measurement.client_verdict import ClientVerdict
from tuner.store import Store


@pytest.fixture(autouse=True)
def a_client_that_keeps_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Server, client and another test share two cores here; what is tested is something else."""

    def believed(report: DriveReport, busy_share: float | None) -> ClientVerdict:
        return ClientVerdict(None, None)

    monkeypatch.setattr(live, "judge_client", believed)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "tuner.db", create=True)
