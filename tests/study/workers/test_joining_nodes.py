"""A node that joins the Ray cluster during a study is used by it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.chaos.cards_night import CardsNight, looking_every, require_nothing_lost
from helpers.ray_cluster import RayCluster

from tuner.store import ProbeKind, Store

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1000)]

NEW = {f"H100-SXM:{number}" for number in (2, 3)}
OFTEN = looking_every(1.0)


def test_its_gpus_measure_the_default_and_take_part(cluster: RayCluster, tmp_path: Path) -> None:
    words = (
        "run --emulate H100-SXM --model Qwen/Qwen3-8B --workload smoke --space power "
        "--slo p99_tpot_ms<=100 --sampler random --no-confirm --no-checks --live --concurrency 4 "
        f"--window-s 1.5 --trials 24 --ray {cluster.address}"
    )
    night = CardsNight(tmp_path, words, cluster.environment, start=OFTEN)
    run = night.start()
    night.await_results(run, 3, 300.0, cluster.let_clients_come_first)
    cluster.add_node(2)
    code = night.code_of(run, 500.0, cluster.let_clients_come_first)
    assert code == 0, night.log.read_text()
    require_nothing_lost(night, 24)
    with Store.open(night.store, create=False) as store:
        trials, probes = store.trials("s"), store.repeats.probes("s")
        told = [event.message for event in store.events("s") if event.kind == "outlier"]
    # cores that are shared make a card seem slower than the others, which leaves it out
    outliers = {card for card in NEW if any(card in message for message in told)}
    assert {t.owner.card for t in trials} | outliers > NEW
    measured = {p.owner.card for p in probes if p.kind is ProbeKind.CARD and p.measurement}
    assert measured > NEW
    assert all(f"card {card} joins" in night.log.read_text() for card in NEW)
