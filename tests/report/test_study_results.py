"""A study in a notebook."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from helpers.stored_study import confirm

import tuner
from tuner.errors import UsageError
from tuner.store import Store, StudyIdentity


def test_trials_repeats_and_the_front_are_frames(store: Store) -> None:
    confirm(store, (0.27, 48.0))
    night = tuner.load_study("night", store=store.shown)
    trials = night.to_pandas()
    assert list(trials["number"]) == list(range(7))
    assert trials["knob.max_num_seqs"].dtype == "Int64"
    assert pd.isna(trials["energy_per_output_token_j"][5])
    assert list(night.front_to_pandas()["number"]) == [2, 0]
    assert len(night.repeats_to_pandas()) == 6
    best = night.recommend()["recommended"]
    front = night.front_to_pandas()
    assert front["energy_per_output_token_j"][0] == best["energy_per_output_token_j"]
    assert night.recommend(slo=["p99_tpot_ms<=40"])["recommended"]["number"] == 0
    assert list(night.to_pandas(slo=["p99_tpot_ms<=40"])["meets_slo"].fillna(False))[:2] == [
        True,
        False,
    ]
    assert night.requests_to_pandas().empty  # this night kept no raw records


def test_the_recommendation_front_and_trials_are_typed(store: Store) -> None:
    confirm(store, (0.27, 48.0))
    study = tuner.load_study("night", store=store.shown)
    best = study.recommendation.best
    assert best.configuration.flags["max_num_seqs"] == 512
    assert [t.number for t in study.front] == list(study.front_to_pandas()["number"])
    assert [t.number for t in study.trials] == list(range(7))
    assert study.trials[2].metrics == study.front[0].metrics
    assert study.trials[5].metrics == {} and study.trials[5].failure is not None
    assert study.trials[0].is_baseline and study.trials[0].window is None
    assert study.trials_dataframe().equals(study.to_pandas())


def test_the_front_is_in_the_order_of_the_studys_objectives(
    empty: Store, identity: StudyIdentity, fill: Callable[[Store, StudyIdentity], None]
) -> None:
    fill(empty, replace(identity, objectives=("p99_tpot_ms", "energy_per_output_token_j")))
    study = tuner.load_study("night", store=empty.shown)
    assert list(study.front_to_pandas()["p99_tpot_ms"]) == [30.0, 45.0, 49.0]
    assert [t.metrics["p99_tpot_ms"] for t in study.front] == [30.0, 45.0, 49.0]


def test_what_a_notebook_shows_is_short_and_without_the_password(store: Store) -> None:
    study = replace(
        tuner.load_study("night", store=store.shown), store_url="postgresql://me:hunter2@db/tuner"
    )
    for text in (repr(study), repr(study.trials), repr(study.front)):
        assert "hunter2" not in text
    assert len(repr(study)) < 160


def test_a_name_that_is_none_names_the_near_ones(store: Store) -> None:
    with pytest.raises(UsageError, match="did you mean 'night'"):
        tuner.load_study("nigth", store=store.shown)


def test_importing_tuner_imports_nothing_heavy() -> None:
    code = "import sys, tuner; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = ("pandas", "numpy", "sqlalchemy", "optuna", "typer", "rich", "yaml", "aiohttp")
    assert not [name for name in heavy if f"'{name}'" in done.stdout]
