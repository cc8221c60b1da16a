from __future__ import annotations

from typing import Any

import pytest
from helpers.stored_study import confirm, empty, fill, identity, store

import tuner
from tuner import plot
from tuner.errors import UsageError
from tuner.report.study_results import StudyResults
from tuner.store import Store

__all__ = ["empty", "fill", "identity", "store"]


@pytest.fixture
def study(store: Store) -> StudyResults:
    confirm(store, (0.27, 48.0))
    return tuner.load_study("night", store=store.shown)


# plotly checks every name and value of a figure against its schema when one is made


def test_the_front_has_the_values_of_the_study(study: StudyResults) -> None:
    made: Any = plot.front(study)
    by_name = {trace.name: trace for trace in made.data}
    (best,) = [t for t in study.front if t.number == study.recommendation.best.number]
    recommended = by_name["recommended (1)"]
    assert list(recommended.y) == [best.metrics["energy_per_output_token_j"]]
    assert list(recommended.x) == [best.metrics["p99_tpot_ms"]]
    assert recommended.error_y.array[0] > 0.0
    assert f"trial {best.number}" in recommended.text[0]
    assert made.layout.xaxis.title.text == "p99 TPOT (ms)"


@pytest.mark.parametrize("name", ["front", "timeline", "power", "importance", "slices"])
def test_every_figure_is_one_that_plotly_accepts(study: StudyResults, name: str) -> None:
    made: Any = getattr(plot, name)(study)
    assert "--" not in str(made.layout.font.color)


def test_a_latency_that_no_window_has_is_named(study: StudyResults) -> None:
    with pytest.raises(UsageError, match="tpot_ms"):
        plot.latency(study)
