"""The public API: what `tuner` exports."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import tuner
from tuner.errors import UsageError


def test_every_public_name_is_there() -> None:
    for name in tuner.__all__:
        assert getattr(tuner, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        tuner.nothing  # noqa: B018


def test_import_is_light_and_measure_stays_a_function() -> None:
    code = (
        "import sys, tuner; assert not {'numpy', 'optuna', 'pydantic'} & set(sys.modules); "
        "import tuner.measurement.precision; assert callable(tuner.measure); "
        "from tuner.measurement import precision; assert precision.Precision"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_study_runs_and_is_resumed_from_python(tmp_path: Path) -> None:
    notes: list[str] = []

    class Notes(tuner.NullListener):
        def note(self, message: str) -> None:
            notes.append(message)

    spec = tuner.StudySpec(
        model="Qwen/Qwen3-8B",
        workload="smoke",
        emulate="H100-SXM",
        space="power",
        slos=(tuner.Slo.parse("p99_tpot_ms<=50"),),
        concurrency=8,
        trials=2,
        min_window_s=5.0,
        max_window_s=5.0,
        confirm=False,
        sampler="random",
        study="night",
    )
    store = str(tmp_path / "s.db")
    study = tuner.run(spec, store=store, listeners=[Notes()])
    assert len(study.trials) == 2
    assert study.spec.slos == spec.slos
    assert len(tuner.resume("night", store=store, trials=1).trials) == 3
    assert len(tuner.load_study("night", store).trials) == 3
    assert len(asyncio.run(tuner.aresume("night", store=store, trials=1)).trials) == 4
    measured = tuner.measure({"max_num_seqs": 64}, spec)
    assert measured.measurement.metrics["energy_per_output_token_j"] > 0


def test_a_study_needs_a_budget() -> None:
    with pytest.raises(UsageError, match="no budget"):
        tuner.run(tuner.StudySpec(model="m"))


def test_a_repr_shows_no_password(tmp_path: Path) -> None:
    from helpers.records import IDENTITY

    study = tuner.StudyResults(IDENTITY, (), (), "postgresql://me:secret@host/db")
    assert "secret" not in repr(study)
    assert IDENTITY.name in repr(study)
