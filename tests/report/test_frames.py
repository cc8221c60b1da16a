from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tuner.analysis.recommendation.recommend import recommend
from tuner.errors import PreflightError
from tuner.metrics import METRICS, TEXT
from tuner.records import (
    PowerTimeline,
    RawRun,
    RequestRecord,
    RequestState,
    ServerTimeline,
    Source,
)
from tuner.report.frames import frame, request_rows, trial_rows, write_csv, write_parquet
from tuner.store import Store, StudyIdentity


@pytest.fixture
def rows(store: Store, identity: StudyIdentity) -> list[dict[str, bool | int | float | str | None]]:
    return trial_rows(identity, store.trials("night"), [])


def test_one_row_per_trial_with_every_metric_knob_and_reason(rows) -> None:  # type: ignore[no-untyped-def]
    assert [row["number"] for row in rows] == list(range(7))
    assert [row["on_front"] for row in rows] == [True, True, True, False, False, False, False]
    assert [row["meets_slo"] for row in rows] == [True, True, True, False, True, None, None]
    assert {name for name in METRICS if not TEXT.lacks(name)} <= set(rows[0])
    assert [row["knob.max_num_seqs"] for row in rows[:2]] == [None, 256]
    assert rows[5]["failure_reason"] == "CUDA out of memory [rank 0]"
    assert rows[5]["energy_per_output_token_j"] is None
    assert rows[0]["p99_itl_ms"] is None
    assert rows[0]["energy_source"] == "measured"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_read_back_the_same_and_unknown_stays_unknown(  # type: ignore[no-untyped-def]
    rows, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / "new" / f"night.{suffix}"
    if suffix == "csv":
        write_csv(rows, path)
        read = pd.read_csv(path)
        assert ",256," in path.read_text()  # a whole number stays one beside missing ones
    else:
        write_parquet(rows, path)
        read = pd.read_parquet(path)
    assert list(read.columns) == list(rows[0])
    for row, got in zip(rows, read.to_dict("records"), strict=True):
        for name, value in row.items():
            assert pd.isna(got[name]) if value is None else got[name] == value, name
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_knob_of_several_kinds_is_text() -> None:
    table = frame([{"knob.dtype": "auto"}, {"knob.dtype": 8}, {"knob.dtype": None}])
    assert table["knob.dtype"].tolist()[:2] == ["auto", "8"]
    assert table["knob.dtype"].isna().tolist() == [False, False, True]


def test_no_trial_gives_a_file_too(tmp_path: Path) -> None:
    write_csv([], tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().strip() == ""


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PreflightError, match=r"pip install pyarrow"):
        write_parquet([{"number": 1}], tmp_path / "t.parquet")


def test_a_path_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(PreflightError, match="cannot write"):
        write_csv([{"number": 1}], tmp_path / "f" / "t.csv")
    with pytest.raises(PreflightError, match="cannot write"):
        write_csv([{"number": 1}], tmp_path)
    assert sorted(p.name for p in tmp_path.parent.iterdir() if "partial" in p.name) == []


def test_one_row_per_request(store: Store) -> None:
    best = recommend(store).best
    assert best.measurement is not None
    nothing = np.array([])
    done = RequestRecord(0, 9, 2, 1.0, 1.1, np.array([1.5, 1.6]), 1.7, RequestState.DONE)
    failed = RequestRecord(1, 9, 2, 2.0, 2.1, nothing, 2.2, RequestState.FAILED, "reset")
    run = RawRun(
        (done, failed),
        PowerTimeline(nothing, nothing, nothing, Source.MEASURED),
        ServerTimeline(nothing, nothing, nothing),
        0.0,
        3.0,
        Source.MEASURED,
    )
    store.save_measurement("night", best.number, best.measurement, run)
    first, second = request_rows(store, "night")
    assert (first["trial"], first["first_token_s"], first["last_token_s"]) == (2, 1.5, 1.6)
    assert (second["state"], second["first_token_s"], second["error"]) == ("failed", None, "reset")
