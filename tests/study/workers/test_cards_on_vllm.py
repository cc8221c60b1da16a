"""A study on two real vLLMs (CPU build) through Ray, one of whose workers is killed."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from helpers.chaos.cards_night import CardsNight, require_nothing_lost
from helpers.ray_cluster import ACTOR, RayCluster
from helpers.studies import TINY_LLAMA, wait_for
from helpers.tiny_vllm import needs_vllm

from tuner.servers.processes import tagged_processes
from tuner.store import Store

pytestmark = [*needs_vllm(1500), pytest.mark.ray]

TRIALS = 8
# Limits of a running server only: a worker launches once, and again after its death.
SPACE = """
name: limits
fixed:
  flags: {load_format: dummy, skip_tokenizer_init: true, enforce_eager: true, dtype: float32,
          max_model_len: 256}
  environment: {VLLM_CPU_KVCACHE_SPACE: 1, HF_HUB_OFFLINE: 1}
flags:
  max_num_seqs: {type: int, low: 1, high: 128}
"""


def test_two_servers_and_a_kill(cluster: RayCluster, tmp_path: Path) -> None:
    model, space = tmp_path / "tiny", tmp_path / "limits.yaml"
    model.mkdir()
    (model / "config.json").write_text(TINY_LLAMA)
    space.write_text(SPACE)
    words = (
        f"run --model {model} --vllm {os.environ['TUNER_VLLM']} --space {space} --workload smoke "
        f"--concurrency 2 --slo p99_e2el_ms<=60000 --window-s 4 --trials {TRIALS} --sampler random "
        f"--no-confirm --no-checks --ray {cluster.address}"
    )
    night = CardsNight(tmp_path, words, cluster.environment)
    run = night.start()
    night.await_results(run, 4, 600.0, cluster.let_clients_come_first)
    random.choice(cluster.processes(ACTOR)).kill()
    code = night.code_of(run, 600.0, cluster.let_clients_come_first)
    assert code == 0, night.log.read_text()
    require_nothing_lost(night, TRIALS)
    with Store.open(night.store, create=False) as store:
        trials = store.trials("s")
    assert sum(trial.measurement is not None for trial in trials) >= TRIALS
    tags = {f"{trial.owner.run_tag}-{worker}" for trial in trials for worker in range(2)}
    assert not [one for tag in tags for one in tagged_processes(tag)]
    wait_for(lambda: not cluster.processes(ACTOR), 30.0)  # Ray ends them
