from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from helpers.stored_study import add_night, repeat

from tuner.analysis.report_data.report_data import ReportData, read_report_data
from tuner.errors import PreflightError
from tuner.measurement.racing.sentence import Lost, lost_sentence
from tuner.records import Failure, FailureKind
from tuner.report.figures.front import front_figure
from tuner.report.figures.trial_points import hover_texts
from tuner.report.html.page import page, write_page
from tuner.report.html.provenance import events, provenance
from tuner.report.json_forms import front_json, recommendation_json
from tuner.slo import Slo
from tuner.store import Store, StudyIdentity

HOSTILE = "</script><img src=x onerror=alert(1)>&amp;'\"${title}"


class Elements(HTMLParser):
    """What a browser would find: scripts by id, tags and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._inside: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = dict(attrs).get("id")

    def handle_data(self, data: str) -> None:
        if self._inside is not None:
            self.texts[self._inside] = self.texts.get(self._inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._inside = None


@pytest.fixture
def report(store: Store) -> ReportData:
    return read_report_data(store, "night")


def data_of(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Elements(text).texts["tuner-data"])
    return loaded


def shown(text: str, cell: str) -> str:
    return re.sub(r"<[^>]+>", " ", text[text.index(cell) :].split("</section>")[0])


def test_numbers_are_those_of_the_other_commands(report: ReportData) -> None:
    data = data_of(page(report))
    assert report.recommendation is not None
    assert data["recommendation"] == recommendation_json(report.recommendation)
    assert data["front"] == front_json(report.confirmed)


def test_first_screen_answers(report: ReportData) -> None:
    text = shown(page(report), 'id="answer"')
    assert re.search(r"Deploy trial 2: +37.5 % less energy +per output token", text)
    assert "Unconfirmed:" in text
    assert "tuner resume night" in text
    assert re.search(r"max_num_seqs +512", text)
    assert re.search(r"p99 TPOT, ms +49 +SLO ≤ 50 · default 30", text)


def test_a_default_that_misses_the_slo_is_no_yardstick(store: Store) -> None:
    for traffic in range(4):
        repeat(store, 0, 0.40, 60.0, traffic=traffic)
        repeat(store, 2, 0.30, 30.0, traffic=traffic)
    text = shown(page(read_report_data(store, "night")), 'id="answer"')
    assert re.search(
        r"25.0 % less energy +per output token than vLLM's default, which misses", text
    )


def test_a_tile_has_the_default_of_the_same_traffic_and_says_so(store: Store) -> None:
    """The default alone had a lighter stretch, on which it used a quarter less."""
    assert "The default&#x27;s figures" not in page(read_report_data(store, "night"))
    for traffic in range(4):
        repeat(store, 0, 0.40, 20.0, traffic=traffic)
        repeat(store, 2, 0.30, 30.0, traffic=traffic)
    repeat(store, 0, 0.30, 15.0, traffic=4)
    text = shown(page(read_report_data(store, "night")), 'id="answer"')
    assert re.search(r"J per output token +0.3 +default 0.4 ", text)
    assert re.search(r"kWh per million output tokens +0.08333 +default 0.1111 ", text)
    assert re.search(r"p99 TPOT, ms +30 +SLO ≤ 50 · default 20 ", text)
    assert "The default&#x27;s figures are of 4 windows of the same traffic." in text


def test_the_front_stands_beside_the_default(report: ReportData) -> None:
    table = shown(page(report), 'id="comparison"')
    assert re.search(r"2 +recommended +0.25 +37.5 %", table)
    assert re.search(r"0 +default +0.4 +0.0 %", table)


def test_every_trial_is_in_the_data_with_what_is_not_known_as_null(report: ReportData) -> None:
    trials = data_of(page(report))["trials"]
    assert trials["number"] == list(range(7))
    assert trials["met"] == [True, True, True, False, True, None, None]
    assert trials["metrics"]["p99_tpot_ms"][4:] == [47.0, None, None]
    assert trials["knobs"]["power_limit_w"][0] is None
    assert trials["reason"][5] == "CUDA out of memory [rank 0]"


def test_another_slo_filters_again(store: Store) -> None:
    text = page(read_report_data(store, "night", [Slo.parse("p99_tpot_ms<=46")]))
    assert "Deploy trial 1:" in shown(text, 'id="answer"')
    assert [s["text"] for s in data_of(text)["slos"]] == ["p99_tpot_ms<=46"]


def test_without_an_answer_it_says_what_came_nearest(store: Store) -> None:
    text = page(read_report_data(store, "night", [Slo.parse("p99_tpot_ms<=1")]))
    assert "No configuration meets the SLO" in text
    assert "nearest: trial 0" in shown(text, 'id="answer"')
    assert data_of(text)["recommendation"] is None


def test_a_study_that_has_just_begun_is_a_page_too(empty: Store, identity: StudyIdentity) -> None:
    empty.create_study(identity)
    text = page(read_report_data(empty, "night"))
    assert "No trial has ended yet" in shown(text, 'id="answer"')
    assert "No configuration meets the SLO" not in text


def test_what_was_ended_early_is_one_reason_however_many_requests(store: Store) -> None:
    for number, many in ((3, 20), (4, 31)):
        found = store.trials("night")[number].measurement
        assert found is not None
        why = f"ended early: {many} of {many} requests were past p99_tpot_ms<=50 in the first 6 s"
        store.save_measurement("night", number, replace(found, ended_early=why), None)
    report = read_report_data(store, "night")
    assert events(report).count("ended early:") == 1
    assert "<td>2</td><td>configuration</td><td>ended early: requests were past" in events(report)
    assert "5 measured (2 ended early), 2 failed" in provenance(report)


def test_what_lost_a_race_is_said_to_have_ended_early_wherever_it_is_shown(store: Store) -> None:
    found = store.trials("night")[1].measurement
    assert found is not None
    lost = lost_sentence("is no better than", Lost(2, {"energy_per_output_token_j": 0.1}), 51.0)
    store.save_measurement("night", 1, replace(found, ended_early=lost), None)
    report = read_report_data(store, "night")
    assert hover_texts(report.confirmed)[1].startswith("<b>trial 1</b> · ended early")
    traces = front_figure(report.confirmed, None)["data"]
    numbers = {t["name"]: t["customdata"] for t in traces if "name" in t}
    assert numbers["ended early"] == [1]
    assert 1 not in (*numbers["SLO met"], *numbers["SLO missed"])


def test_nothing_of_the_store_becomes_markup(empty: Store, identity: StudyIdentity) -> None:
    hostile = replace(
        identity,
        name=HOSTILE,
        model=HOSTILE,
        gpu=HOSTILE,
        workload_name=HOSTILE,
        spec_json={"model": HOSTILE},
    )
    add_night(empty, hostile)
    empty.add_event(HOSTILE, HOSTILE, HOSTILE)
    empty.save_failure(HOSTILE, 6, Failure(FailureKind.CONFIGURATION, HOSTILE))
    text = page(read_report_data(empty, HOSTILE))
    found = Elements(text)
    assert not [t for t in found.tags if t[0] == "img" or "onerror" in t[1]]
    assert text.count("</script>") == 4  # the theme, the data, Plotly, the page's own
    assert not set("<>&") & set(found.texts["tuner-data"])  # no comment, script or entity begins
    data = data_of(text)
    assert data["study"] == HOSTILE
    assert data["trials"]["reason"][6] == HOSTILE


def test_nothing_is_loaded(report: ReportData) -> None:
    found = Elements(page(report))
    addresses = [
        value
        for _, attributes in found.tags
        for name in ("src", "href", "action")
        if (value := attributes.get(name)) is not None
    ]
    assert addresses
    assert all(a.startswith(("#", "data:")) for a in addresses)


def test_the_file_is_whole_or_not_there(report: ReportData, tmp_path: Path) -> None:
    path = tmp_path / "made" / "night.html"
    assert write_page(report, path) == path.stat().st_size
    (tmp_path / "file").write_text("")
    with pytest.raises(PreflightError, match="name another file with -o"):
        write_page(report, tmp_path / "file" / "night.html")
    assert not list(tmp_path.rglob("*.partial"))


def test_plotly_is_what_its_readme_says() -> None:
    folder = files("tuner.report.html").joinpath("plotly")
    script = folder.joinpath("plotly-basic.min.js").read_bytes()
    said = folder.joinpath("README.md").read_text()
    assert f"sha256 {hashlib.sha256(script).hexdigest()}  plotly-basic.min.js" in said
    version = re.search(rb"v([0-9.]+)\n", script[:100])
    assert version is not None
    assert f"plotly.js {version[1].decode()}," in said
