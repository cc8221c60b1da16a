"""Alerts: quiet at the confirmed figures, loud when production drifts, as promtool judges them."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.records import IDENTITY
from helpers.stored_study import add_night

from tuner.analysis.recommendation.recommend import recommend
from tuner.catalog.histogram_bounds import BETWEEN_TOKENS_S
from tuner.report.exports.alerts.prometheus import alert_rules
from tuner.report.exports.deployment import Deployment, MeasuredFigure, deployment
from tuner.slo import Slo
from tuner.store import Store

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian: prometheus)")
J_PER_TOKEN, REQUESTS_S, TOKENS_S, CLOCK = 0.2, 4.0, 2000.0, 1200


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    with Store.open(tmp_path_factory.mktemp("alerts") / "tuner.db", create=True) as store:
        add_night(store, IDENTITY)
        made = deployment(recommend(store))
    slos = (Slo.parse("p99_tpot_ms<=25"), Slo.parse("mean_ttft_ms<=500"))
    rate = MeasuredFigure("request_throughput_req_s", REQUESTS_S, "req/s", made.figures[0].source)
    return replace(
        made,
        energy_high_j=J_PER_TOKEN,
        figures=(rate,),
        slos=slos,
        sm_clock_mhz=CLOCK,
        power_limit_w=500.0,
    )


def rules(made: Deployment) -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(alert_rules(made))["groups"]
    return list(group["rules"])


def promtool(*words: str) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def series(made: Deployment, energy: float, tpot_s: float, clock: float, rate: float) -> list[Any]:
    """Two hours a minute apart, in vLLM's own buckets."""
    model = f'model_name="{made.model}"'
    tokens = TOKENS_S * rate / REQUESTS_S

    def counter(name: str, per_second: float) -> dict[str, str]:
        return {"series": name, "values": f"0+{per_second * 60.0:g}x120"}

    histogram = "vllm:request_time_per_output_token_seconds_bucket"
    below = {bound_s: rate if bound_s >= tpot_s else 0.0 for bound_s in BETWEEN_TOKENS_S}
    return [
        counter('DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="0"}', energy * tokens * 1000.0),
        counter(f"vllm:generation_tokens_total{{{model}}}", tokens),
        counter(f"vllm:request_success_total{{{model}}}", rate),
        counter(f"vllm:time_to_first_token_seconds_sum{{{model}}}", 0.1 * rate),
        counter(f"vllm:time_to_first_token_seconds_count{{{model}}}", rate),
        *(counter(f'{histogram}{{{model},le="{b}"}}', n) for b, n in below.items()),
        counter(f'{histogram}{{{model},le="+Inf"}}', rate),
        {"series": 'DCGM_FI_DEV_SM_CLOCK{gpu="0"}', "values": f"{clock}x120"},
        {"series": 'DCGM_FI_DEV_POWER_USAGE{gpu="0"}', "values": "400x120"},
    ]


CASES = {
    "as confirmed": (J_PER_TOKEN, 0.015, CLOCK, REQUESTS_S, set()),
    "within what two cards differ by": (1.08 * J_PER_TOKEN, 0.015, CLOCK, REQUESTS_S, set()),
    "more energy": (1.2 * J_PER_TOKEN, 0.015, CLOCK, REQUESTS_S, {"EnergyPerTokenDrifted"}),
    "more energy at little load": (3.0 * J_PER_TOKEN, 0.015, CLOCK, 0.2 * REQUESTS_S, set()),
    "slower": (J_PER_TOKEN, 0.045, CLOCK, REQUESTS_S, {"LatencySloMissed"}),
    "the lock is lost": (J_PER_TOKEN, 0.015, 1980, REQUESTS_S, {"ClockLockLost"}),
}


@needs_promtool
def test_the_rules_are_valid_whatever_the_model_is_called(
    confirmed: Deployment, awkward: Deployment, simple: Deployment, tmp_path: Path
) -> None:
    for number, made in enumerate((confirmed, awkward, simple)):
        file = tmp_path / f"{number}.yaml"
        file.write_text(alert_rules(made))
        promtool("check", "rules", str(file))


def judge(made: Deployment, inputs: list[Any], fires: set[str], tmp_path: Path) -> None:
    """Let promtool say which alerts fire after two hours."""
    (tmp_path / "rules.yaml").write_text(alert_rules(made))
    names = {rule["alert"]: rule for rule in rules(made) if "alert" in rule}
    assert fires <= set(names)
    quiet = [
        {"eval_time": "2h", "alertname": name, "exp_alerts": []} for name in set(names) - fires
    ]
    test = {"interval": "1m", "input_series": inputs, "alert_rule_test": quiet}
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(whole))
    promtool("test", "rules", str(tmp_path / "test.yaml"))
    test["alert_rule_test"] = [{"eval_time": "2h", "alertname": n, "exp_alerts": []} for n in fires]
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(whole))
    for _ in fires:
        with pytest.raises(AssertionError, match="got:"):
            promtool("test", "rules", str(tmp_path / "test.yaml"))


@needs_promtool
@pytest.mark.parametrize("case", CASES)
def test_what_fires(confirmed: Deployment, tmp_path: Path, case: str) -> None:
    energy, tpot_s, clock, rate, fires = CASES[case]
    judge(confirmed, series(confirmed, energy, tpot_s, clock, rate), fires, tmp_path)


@needs_promtool
@pytest.mark.parametrize("bound_ms", [8, 15, 20, 25])
def test_a_percentile_is_judged_where_the_buckets_can_tell(
    confirmed: Deployment, tmp_path: Path, bound_ms: int
) -> None:
    made = replace(confirmed, slos=(Slo.parse(f"p99_tpot_ms<={bound_ms}"),))
    met = series(made, J_PER_TOKEN, 0.95e-3 * bound_ms, CLOCK, REQUESTS_S)
    judge(made, met, set(), tmp_path)
    missed = series(made, J_PER_TOKEN, 0.026, CLOCK, REQUESTS_S)
    judge(made, missed, {"LatencySloMissed"}, tmp_path)


def test_each_rule_is_there_for_a_reason(confirmed: Deployment, simple: Deployment) -> None:
    alerts = [rule["alert"] for rule in rules(confirmed) if "alert" in rule]
    assert sorted(alerts) == [
        "ClockLockLost",
        "EnergyPerTokenDrifted",
        "LatencySloMissed",
        "LatencySloMissed",
        "PowerLimitLost",
    ]
    assert not any("Limit" in str(rule.get("alert")) for rule in rules(simple))
    images = replace(confirmed, is_omni=True)  # vLLM-Omni counts no tokens
    assert all("vllm:" not in rule["expr"] for rule in rules(images))
