"""The contact sheet of a stored study: the baseline beside the trials, small, and nothing else."""

from __future__ import annotations

from pathlib import Path

from helpers.records import IDENTITY, OWNER
from helpers.stored_study import add_night, measurement

from tuner.analysis.report_data.report_data import read_report_data
from tuner.pictures import PictureChange
from tuner.records import Source, Timing
from tuner.report.figures.contact_sheet import contact_sheet
from tuner.store import RepeatKind, Store

JPEG = b"\xff\xd8\xff\xe0 a small picture"


def stored(folder: Path, after: bytes = JPEG) -> Store:
    store = Store.open(folder / "tuner.db", create=True)
    add_night(store, IDENTITY)
    change = PictureChange("<b>a boat</b>", 7, 31.4, 0.93, 1, JPEG, after)
    for trial in (0, 2, 1):
        kind = RepeatKind.CONFIRMATION if trial else RepeatKind.BASELINE
        number = store.repeats.begin("night", trial, kind, OWNER)
        found = measurement(0.3, 40.0, 5000.0, Source.MEASURED)
        store.repeats.save(
            "night", number, found, None, timing=Timing(90.0), pictures=(change, change)
        )
    return store


def test_each_prompt_has_a_row_and_each_trial_a_column(tmp_path: Path) -> None:
    sheet = contact_sheet(read_report_data(stored(tmp_path), "night"))
    assert sheet.count("<tr>") == 3
    assert sheet.count("data:image/jpeg;base64,") == 2 * 3
    assert "trial 1" in sheet and "trial 2" in sheet and "trial 0" not in sheet
    assert "SSIM 0.930, PSNR 31 dB" in sheet
    assert "<b>a boat" not in sheet


def test_what_is_no_small_jpeg_is_not_shown(tmp_path: Path) -> None:
    sheet = contact_sheet(read_report_data(stored(tmp_path, b"<script>"), "night"))
    assert sheet.count("not shown") == 4


def test_a_study_without_pictures_has_no_sheet(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "tuner.db", create=True)
    add_night(store, IDENTITY)
    assert contact_sheet(read_report_data(store, "night")) == ""


def test_pictures_are_read_back_from_the_store(tmp_path: Path) -> None:
    rows = stored(tmp_path).repeats.of("night")
    assert all(row.pictures is not None and row.pictures[0].before == JPEG for row in rows)
