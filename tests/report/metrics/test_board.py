"""The Grafana board of docs/: Grafana's models know every key, its queries what is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.records import IDENTITY
from helpers.stored_study import add_night

import tuner
from tuner.report.exports.alerts.prometheus import alert_rules
from tuner.report.exports.deployment import deployment
from tuner.report.metrics.families import families, power_family
from tuner.report.study_results import load_study
from tuner.store import Store

pytest.importorskip("prometheus_client")
BOARD = Path(tuner.__file__).parents[1] / "docs" / "tuner-board.json"
PROMTOOL = shutil.which("promtool")


@pytest.fixture(scope="module")
def board() -> dict[str, Any]:
    return dict(json.loads(BOARD.read_text()))


def queries(board: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in board["panels"] for target in panel["targets"]]


def missing(ours: Any, theirs: Any, place: str = "") -> list[str]:
    """Return the places whose value Grafana's models do not keep."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            lost
            for key, value in ours.items()
            for lost in missing(value, theirs.get(key), f"{place}.{key}")
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [lost for n, (a, b) in pairs for lost in missing(a, b, f"{place}[{n}]")]
    return [] if ours == theirs else [place]


def read_back(board: dict[str, Any]) -> Any:
    """Return the board as Grafana's own models write it after they have read it."""
    pytest.importorskip("grafana_foundation_sdk")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(board)))


def test_grafanas_own_models_know_every_key(board: dict[str, Any]) -> None:
    assert missing(board, read_back(board)) == []
    wrong = json.loads(json.dumps(board))
    wrong["panels"][0]["gridpos"] = wrong["panels"][0].pop("gridPos")
    assert missing(wrong, read_back(wrong)) == [".panels[0].gridpos"]


def test_no_two_panels_lie_on_one_another(board: dict[str, Any]) -> None:
    taken = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells


def test_every_query_asks_for_a_metric_that_is_published(
    board: dict[str, Any], tmp_path: Path
) -> None:
    from tuner.analysis.recommendation.recommend import recommend
    from tuner.records import LoadSnapshot, Source

    with Store.open(tmp_path / "tuner.db", create=True) as store:
        add_night(store, replace(IDENTITY, name="night"))
        rules = yaml.safe_load(alert_rules(deployment(recommend(store))))
    study = load_study("night", str(tmp_path / "tuner.db"))
    now = LoadSnapshot(400.0, None, None, None, Source.MEASURED, Source.MEASURED)
    known = {
        sample.name
        for family in [*families(study, is_running=True), *power_family("night", now)]
        for sample in family.samples
    }
    known |= {rule["record"] for rule in rules["groups"][0]["rules"] if "record" in rule}
    known |= {"tuner_slo_miss_ratio", "tuner_failures_total"}  # once there is one
    asked = set(re.findall(r"\b(?:tuner_\w+|deployment:[\w:]+)", " ".join(queries(board))))
    assert asked - known == set() and len(asked) >= 12


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian: prometheus)")
def test_every_query_is_promql(board: dict[str, Any], tmp_path: Path) -> None:
    assert PROMTOOL is not None
    rules = [{"record": f"query:{n}", "expr": text} for n, text in enumerate(queries(board))]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    done = subprocess.run([PROMTOOL, "check", "rules", str(file)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
