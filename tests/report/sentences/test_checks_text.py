"""The headroom in words: how much load is held, and what was not measured."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from helpers.records import IDENTITY
from helpers.stored_study import add_night, measurement
from helpers.testbed import OWNER

from tuner.analysis.deployment.headroom import Headroom
from tuner.analysis.recommendation.recommend import recommend
from tuner.analysis.report_data.report_data import read_report_data
from tuner.records import Load, Source, Timing
from tuner.report.html.answer import answer
from tuner.report.sentences.checks_text import (
    has_less_headroom,
    headroom_range,
    headroom_sentence,
)
from tuner.slo import Slo
from tuner.store import ProbeKind, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store.open(tmp_path / "tuner.db", create=True)
    add_night(opened, IDENTITY)
    return opened


def probe(store: Store, trial: int, tpot_ms_at: dict[int, float]) -> None:
    for concurrency, tpot_ms in tpot_ms_at.items():
        load = Load(concurrency=concurrency)
        number = store.repeats.begin("night", trial, ProbeKind.HEADROOM, OWNER, 0, load)
        found = measurement(0.3, tpot_ms, 5000.0, Source.MEASURED)
        store.repeats.save("night", number, found, None, timing=Timing(90.0))


def sentence(store: Store, *slos: str) -> tuple[str | None, bool]:
    found = recommend(store, slos=[Slo.parse(slo) for slo in slos] or None)
    return headroom_sentence(found), has_less_headroom(found)


def tile(store: Store) -> str:
    """Return the value and the note of the headroom's tile on the page."""
    page = answer(read_report_data(store, "night"))
    (found,) = re.findall("Headroom, requests at once</span>(.*?)</div>", page)
    return html.unescape(" ".join(re.sub("<[^>]+>", " ", found).split()))


def test_thousands_of_requests_are_written_out(store: Store) -> None:
    probe(store, 2, {2720: 49.0})
    assert sentence(store) == ("holds to at least 2,720 requests at once", False)


def test_neighbours_are_one_number(store: Store) -> None:
    probe(store, 2, {100: 49.0, 104: 51.0})
    assert sentence(store) == ("holds to 100 requests at once", False)
    assert tile(store) == "100"


def test_less_than_the_default_goes_with_the_saving(store: Store) -> None:
    probe(store, 2, {100: 49.0, 104: 51.0})
    probe(store, 0, {104: 48.0, 200: 49.0, 208: 51.0})
    said = "saves 37.5 %, and serves up to 100 instead of 200 requests at once"
    assert sentence(store) == (said, True)
    assert tile(store) == "100 default 200"


def test_what_lies_between_two_loads_that_are_far_apart_is_unknown(store: Store) -> None:
    """Another SLO than the study's: its own limit was not searched."""
    probe(store, 2, {40: 49.0, 100: 52.0, 104: 55.0})
    probe(store, 0, {60: 40.0, 200: 60.0})
    said = "holds to between 40 and 100 requests at once, the default to between 60 and 200"
    assert sentence(store) == (said, False)
    assert tile(store) == "40 to 100 default 60 to 200"
    assert sentence(store, "p99_tpot_ms<=53")[0] == (
        "holds to 100 requests at once, the default to between 60 and 200"
    )


def test_without_an_end_on_one_side(store: Store) -> None:
    probe(store, 2, {40: 49.0})
    assert sentence(store) == ("holds to at least 40 requests at once", False)
    probe(store, 0, {32: 60.0})
    said = "holds to at least 40 requests at once, the default misses the SLO even at 32"
    assert sentence(store) == (said, False)
    assert tile(store) == "\u2265 40 default < 32"


def test_a_tile_writes_a_load_as_the_sentence_does() -> None:
    """Thousands of requests/s had an exponent."""
    assert headroom_range(Headroom(2718.0, 2800.0), whole=False) == "2,720"
    assert headroom_range(Headroom(2718.0, 4000.0), whole=False) == "2,720 to 4,000"
    assert headroom_range(Headroom(None, 6.12), whole=False) == "< 6.12"
