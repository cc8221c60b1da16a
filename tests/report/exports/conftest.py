"""A deployment with everything that has to be quoted, and a stand-in for nvidia-smi."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.export_cases import ENVIRONMENT, FLAGS, MODEL, having
from helpers.records import IDENTITY
from helpers.stored_study import add_night

from tuner.analysis.recommendation.recommend import Recommendation, recommend
from tuner.records import Source
from tuner.report.exports.deployment import Deployment, deployment
from tuner.store import Store

NVIDIA_SMI = """#!/bin/sh
# GPU i has a file i.persistence, i.limit and i.clocks; every change is a line of `log`
cd "{folder}"
gpu=
while [ $# -gt 0 ]; do
  case "$1" in
    -i) gpu=$2; shift 2;;
    --query-gpu=index) printf '0\\n1\\n'; exit;;
    --query-gpu=persistence_mode,power.limit)
      echo "$(cat $gpu.persistence), $(cat $gpu.limit)"; exit;;
    -pm) [ "$2" = 1 ] && echo Enabled >$gpu.persistence || echo Disabled >$gpu.persistence; exit;;
    -pl) [ -e broken ] && exit 4; echo "$2" >$gpu.limit; echo "$gpu -pl $2" >>log; exit;;
    -lgc) echo "$2" >$gpu.clocks; exit;;
    -rgc) [ -e broken-clocks ] && exit 4; rm -f $gpu.clocks; exit;;
    *) exit 9;;
  esac
done
"""


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> Recommendation:
    with Store.open(tmp_path_factory.mktemp("exports") / "tuner.db", create=True) as store:
        add_night(store, IDENTITY)
        return recommend(store)


@pytest.fixture(scope="session")
def awkward(found: Recommendation) -> Deployment:
    asked = having(
        found,
        flags=dict(FLAGS),
        environment=dict(ENVIRONMENT),
        device={"power_limit_w": 400, "sm_clock_mhz": 1410},
    )
    return deployment(replace(asked, study=replace(asked.study, model=MODEL)))


@pytest.fixture(scope="session")
def simple(found: Recommendation) -> Deployment:
    """Without any limit of the GPU."""
    return deployment(having(found, flags={"max_num_seqs": 64}))


@pytest.fixture(scope="session")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    virtual = replace(IDENTITY, energy_source=Source.EMULATED, latency_source=Source.EMULATED)
    with Store.open(tmp_path_factory.mktemp("emulated") / "tuner.db", create=True) as store:
        add_night(store, virtual)
        return deployment(recommend(store))


@pytest.fixture
def gpus(tmp_path: Path) -> Path:
    """Two GPUs, of which one has persistence mode on, and an nvidia-smi in `bin`."""
    folder = tmp_path / "gpus"
    (folder / "bin").mkdir(parents=True)
    smi = folder / "bin" / "nvidia-smi"
    smi.write_text(NVIDIA_SMI.replace("{folder}", str(folder)))
    smi.chmod(0o755)
    for gpu, (limit, persistence) in enumerate([("700.00", "Disabled"), ("650.00", "Enabled")]):
        (folder / f"{gpu}.limit").write_text(limit + "\n")
        (folder / f"{gpu}.persistence").write_text(persistence + "\n")
    return folder
