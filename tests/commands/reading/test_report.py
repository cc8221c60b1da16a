from __future__ import annotations

from pathlib import Path

import pytest
from helpers.records import IDENTITY
from helpers.stored_study import add_night
from helpers.studies import InProcess

from tuner.store import Store


@pytest.fixture
def tuner(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path)


def test_a_file_named_after_the_study(tuner: InProcess) -> None:
    with Store.open(tuner.store_path, create=True) as store:
        add_night(store, IDENTITY)
    made = tuner("report", "night")
    assert (made.returncode, made.stdout) == (0, "")
    assert made.stderr.startswith("wrote results/night.html (")
    assert "Deploy trial 2" in (tuner.folder / "results" / "night.html").read_text()


def test_pictures_need_a_browser_and_say_so(
    tuner: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tuner.folder))
    told = tuner("report", "night", "--png", "pictures")
    assert told.returncode == 3
    assert "apt-get install chromium" in told.stderr


def test_pictures_need_no_folder(tuner: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The browser is another test's; here it is only asked for."""
    with Store.open(tuner.store_path, create=True) as store:
        add_night(store, IDENTITY)
    drawn: list[tuple[Path, Path]] = []

    def draw(report: Path, folder: Path) -> list[Path]:
        drawn.append((report, folder))
        return []

    monkeypatch.setattr("tuner.report.html.png.browser_path", lambda: Path("chromium"))
    monkeypatch.setattr("tuner.report.html.png.write_pictures", draw)
    beside = Path("results/night-figures")
    for words, folder in (
        (("--png",), beside),
        (("--png", "--store", "results/tuner.db"), beside),
        (("--png", "here"), Path("here")),
        (("--png=there",), Path("there")),
    ):
        assert tuner("report", *words).returncode == 0
        assert drawn.pop() == (Path("results/night.html"), folder)
