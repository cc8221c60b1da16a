"""A study as Prometheus reads it: the file, the port, and names that promtool accepts."""

from __future__ import annotations

import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.records import IDENTITY
from helpers.stored_study import add_night

from tuner.api.runs import publishing
from tuner.errors import PreflightError, UsageError
from tuner.records import LoadSnapshot, Source
from tuner.report.metrics.publisher import MetricsPublisher
from tuner.report.study_results import load_study
from tuner.store import Store
from tuner.study.listener import Progress

client = pytest.importorskip("prometheus_client")
parser = pytest.importorskip("prometheus_client.parser")
NOW = LoadSnapshot(432.0, 1200.0, 80.0, 12.0, Source.MEASURED, Source.MEASURED)
PROMTOOL = shutil.which("promtool")


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = tmp_path / "tuner.db"
    with Store.open(path, create=True) as opened:
        add_night(opened, replace(IDENTITY, name="night"))
    return str(path)


def heard(publisher: MetricsPublisher) -> None:
    publisher.study_started("night", Progress(4, 10, 400.0, 3600.0))
    publisher.load_sampled(NOW)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    (found,) = [
        value
        for (known, held), value in samples(text).items()
        if known == name and labels.items() <= dict(held).items()
    ]
    return found


@pytest.fixture
def text(store: str, tmp_path: Path) -> Iterator[str]:
    notes: list[str] = []
    with publishing(store, notes.append, file=tmp_path / "night.prom") as publishers:
        heard(publishers[0])
    assert notes == []
    yield (tmp_path / "night.prom").read_text()


def test_the_file_says_what_the_store_says(text: str, store: str) -> None:
    study = load_study("night", store)
    best = study.recommendation.summary_of(study.recommendation.best)
    role = "default" if best.baseline else "recommended"
    figures = {"role": role} if role == "recommended" else {"trial": str(best.number)}
    assert value(text, "tuner_energy_per_unit_joules", **figures) == best.energy_per_unit_j
    assert value(text, "tuner_mean_power_watts", **figures) == best.mean_power_w
    p99_s = value(text, "tuner_latency_seconds", latency="p99_tpot", **figures)
    assert p99_s == pytest.approx((best.p99_tpot_ms or 0.0) / 1e3)
    trials = sum(v for (name, _), v in samples(text).items() if name == "tuner_trials_total")
    assert trials == len(study.rows)
    assert value(text, "tuner_running", study="night") == 0.0  # it has ended
    sources = {dict(labels).get("source") for (_, labels) in samples(text)} - {None}
    assert sources == {study.identity.energy_source.value, study.identity.latency_source.value}


def test_nothing_half_written_is_left(text: str, tmp_path: Path) -> None:
    assert [path.name for path in tmp_path.glob("night.prom*")] == ["night.prom"]
    assert text.endswith("\n")


def test_the_port_is_this_machines_and_shows_the_present_power(store: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with publishing(store, print, port=port) as publishers:
        heard(publishers[0])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert value(text, "tuner_power_watts", source="measured") == 432.0
        with pytest.raises(PreflightError, match=f"{port} on 127.0.0.1 cannot be opened"):
            MetricsPublisher(store, print, port=port)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))  # it is closed


def test_a_folder_that_is_not_there_is_said_before_the_run(store: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        MetricsPublisher(store, print, file=tmp_path / "none" / "night.prom")


def test_what_goes_wrong_later_is_noted_once_and_harms_nothing(store: str, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    notes: list[str] = []
    with publishing(store, notes.append, file=folder / "night.prom") as publishers:
        folder.rmdir()
        heard(publishers[0])
    (note,) = notes
    assert "the metrics are not published" in note


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian: prometheus)")
def test_promtool_finds_nothing_wrong_with_the_names(text: str) -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
