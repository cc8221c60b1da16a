"""What a bench measured for a killed driver is taken into the log, once, and from there stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers.scripted import measurement
from helpers.testbed import OWNER, Testbed

from tuner.configuration import Configuration
from tuner.errors import OperatorNeededError
from tuner.evaluation.evaluator import Evaluation
from tuner.evaluation.remote.protocol import LeftOver
from tuner.records import Failure, Timing
from tuner.store import ProbeKind, Store, TrialState
from tuner.store.log.measurement_log import MeasurementLog
from tuner.study.durability.left_over import keep_left_over
from tuner.study.durability.recovery import recover

ASKED = Configuration(flags={"max_num_seqs": 64})


def left(number: int, method: str = "evaluate") -> LeftOver:
    result = measurement(energy_per_output_token_j=0.2, p99_tpot_ms=20.0)
    evaluation = Evaluation(result, None, (), Timing(30.0), is_virtual=True)
    return LeftOver(method, number, evaluation, datetime.now(UTC))  # type: ignore[arg-type]


def test_a_result_outlives_its_driver(store: Store, tmp_path: Path) -> None:
    bed, owner = Testbed(store), replace(OWNER, card="a")
    log = MeasurementLog(tmp_path / "log" / "s.jsonl", reserve_bytes=4096)
    log.open()
    store.begin_trial("s", 0, ASKED, baseline=False, owner=owner)
    repeat = store.repeats.begin("s", 0, ProbeKind.CARD, replace(OWNER, card="b"))
    keep_left_over("s", store, log, [left(0), left(repeat, "probe")])
    size = log.path.stat().st_size
    keep_left_over("s", store, log, [left(0), left(repeat, "probe")])
    assert log.path.stat().st_size == size  # the log has them, the store not yet
    assert recover("s", bed.spec, store, log, bed.listener.note) == 2
    trial = store.trial("s", 0)
    assert trial is not None and trial.state is TrialState.MEASURED
    assert (trial.owner.card, trial.configuration) == ("a", ASKED)
    (probe,) = store.repeats.probes("s")
    assert probe.measurement is not None and probe.owner.card == "b"
    keep_left_over("s", store, log, [left(0), left(repeat, "probe"), left(7)])
    assert log.path.stat().st_size == size  # known, or of no trial


def test_workers_may_store_in_another_order_than_they_log(store: Store, tmp_path: Path) -> None:
    """A kill amid them leaves an older result that is only in the log."""
    bed = Testbed(store)
    log = MeasurementLog(tmp_path / "log" / "s.jsonl", reserve_bytes=4096)
    log.open()
    for number in range(6):
        store.begin_trial("s", number, ASKED, baseline=False, owner=OWNER)
    found = [left(number) for number in range(6)]
    keep_left_over("s", store, log, found)
    for one in found[1:]:
        assert not isinstance(one.evaluation.result, Failure)
        store.save_measurement("s", one.number, one.evaluation.result, None)
    assert recover("s", bed.spec, store, log, bed.listener.note) == 1
    assert store.states("s")[0] is TrialState.MEASURED


def test_a_log_that_cannot_be_written_is_told(store: Store, tmp_path: Path) -> None:
    Testbed(store)
    log = MeasurementLog(tmp_path / "s.jsonl")
    log.path.mkdir()
    store.begin_trial("s", 0, ASKED, baseline=False, owner=OWNER)
    with pytest.raises(OperatorNeededError, match=r"s\.jsonl .*directory.*`tuner resume s`"):
        keep_left_over("s", store, log, [left(0)])
