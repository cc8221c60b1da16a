"""Prometheus rules that say when production drifts from what was confirmed.

Energy and clocks are those of DCGM-exporter's default counters, tokens and latencies vLLM's own.
vLLM measures a latency in the server, so the network is not in it. It counts in wide buckets, and
within one a percentile is a guess, near the end. Compared with a bound it is exact, so an SLO is
rounded up to the next one: what rings is surely missed.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from tuner.catalog.histogram_bounds import BETWEEN_TOKENS_S, FIRST_TOKEN_S, WHOLE_REQUEST_S
from tuner.report.exports.deployment import Deployment, comments, plain
from tuner.report.exports.vllm import withheld_notes
from tuner.report.exports.yaml_text import yaml_text
from tuner.slo import Slo

_OVER = "30m"  # of a rate
_MORE = 1.10  # two cards of one host differ by about as much on the same work
_LOAD = (0.75, 1.25)  # of the studied rate: J/token depends on it
_ABOVE_CLOCK, _ABOVE_LIMIT = 1.03, 1.05
_HISTOGRAMS = {
    "ttft_ms": ("vllm:time_to_first_token_seconds", FIRST_TOKEN_S),
    "tpot_ms": ("vllm:request_time_per_output_token_seconds", BETWEEN_TOKENS_S),
    "itl_ms": ("vllm:inter_token_latency_seconds", BETWEEN_TOKENS_S),
    "e2el_ms": ("vllm:e2e_request_latency_seconds", WHOLE_REQUEST_S),
}
_LATENCY = re.compile(r"(mean|p(\d+))_(ttft_ms|tpot_ms|itl_ms|e2el_ms)")


def alert_rules(deployment: Deployment) -> str:
    """Return a file of rules: `rule_files` of Prometheus, or the spec of a PrometheusRule."""
    d = deployment
    rules = [*_recorded(d), *_energy(d), *_latencies(d), *_limits(d)]
    notes = (
        *d.about,
        *withheld_notes(d),
        f"watches: vllm serve {shlex.join(d.words)}",
        "use: name it under rule_files in prometheus.yml, or put its groups into the spec of",
        "a PrometheusRule",
        "adapt: the selectors of the recorded rules, so that they match this server and its GPUs",
        "undo: remove the file, and reload Prometheus",
    )
    return comments(notes) + yaml_text({"groups": [{"name": d.name, "rules": rules}]})


def _server(d: Deployment) -> str:
    name = d.model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{{model_name="{name}"}}'


def _recorded(d: Deployment) -> list[dict[str, Any]]:
    """Return what is computed once: power of the GPUs, tokens, requests, energy per token."""
    labels = {"deployment": d.name}
    own = f'{{deployment="{d.name}"}}'
    power = f"sum(rate(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION[{_OVER}])) / 1000"  # mJ
    rules = [("deployment:gpu_power_watts:rate30m", power)]
    if not d.is_omni:
        server = _server(d)
        tokens = f"sum(rate(vllm:generation_tokens_total{server}[{_OVER}]))"
        requests = f"sum(rate(vllm:request_success_total{server}[{_OVER}]))"
        rules += [
            ("deployment:output_tokens_per_second:rate30m", tokens),
            ("deployment:requests_per_second:rate30m", requests),
            (
                "deployment:energy_per_output_token_joules:rate30m",
                f"deployment:gpu_power_watts:rate30m{own} "
                f"/ deployment:output_tokens_per_second:rate30m{own}",
            ),
        ]
    return [{"record": name, "expr": text, "labels": labels} for name, text in rules]


def _energy(d: Deployment) -> list[dict[str, Any]]:
    figures = {figure.name: figure.value for figure in d.figures}
    rate = figures.get("request_throughput_req_s")
    if d.is_omni or d.energy_high_j is None or not rate:
        return []
    own = f'{{deployment="{d.name}"}}'
    low, high = (plain(share * rate) for share in _LOAD)
    load = f"deployment:requests_per_second:rate30m{own}"
    expression = (
        f"deployment:energy_per_output_token_joules:rate30m{own} > {plain(_MORE * d.energy_high_j)}"
        f" and {load} > {low} and {load} < {high}"
    )
    return [
        _alert(
            d,
            "EnergyPerTokenDrifted",
            expression,
            "1h",
            f"{d.name}: {{{{ $value | humanize }}}} J per output token; the study "
            f"found {plain(d.energy_high_j)} at most at this load",
            "Look for lost limits, other work on the GPUs, other lengths of requests, or another "
            "version of server or driver; then measure again with tuner.",
        )
    ]


def _latencies(d: Deployment) -> list[dict[str, Any]]:
    """Return an alert for each SLO on a latency that vLLM has a histogram of."""
    return [] if d.is_omni else [rule for slo in d.slos if (rule := _of_slo(d, slo)) is not None]


def _of_slo(d: Deployment, slo: Slo) -> dict[str, Any] | None:
    found = _LATENCY.fullmatch(slo.metric)
    if found is None:
        return None
    (histogram, bounds_s), server = _HISTOGRAMS[found[3]], _server(d)
    slo_s = most_s = slo.bound / 1000.0
    if found[2] is None:
        total, count = (
            f"sum(rate({histogram}_{part}{server}[{_OVER}]))" for part in ("sum", "count")
        )
        value = f"{total} / {count}"
    else:
        share = plain(int(found[2]) / 100.0)
        buckets = f"sum by (le) (rate({histogram}_bucket{server}[{_OVER}]))"
        value = f"histogram_quantile({share}, {buckets})"
        most_s = min((bound_s for bound_s in bounds_s if bound_s >= slo_s), default=slo_s)
    advice = "Look for more load than was studied, longer requests, or another process on the GPUs."
    if most_s > slo_s:
        advice += (
            f" vLLM's histogram has no bound before {plain(most_s)} s, so this rings above it."
        )
    return _alert(
        d,
        "LatencySloMissed",
        f"{value} > {plain(most_s)}",
        "15m",
        f"{d.name}: {slo} is missed, {{{{ $value | humanizeDuration }}}}",
        advice,
        slo=slo.metric,
    )


def _limits(d: Deployment) -> list[dict[str, Any]]:
    """Return alerts for limits that a driver's reload, a reboot or another hand has lost."""
    found = []
    text = "Set the limits again (the units and objects that tuner writes do), and look who did it."
    if d.sm_clock_mhz is not None:
        most = plain(_ABOVE_CLOCK * d.sm_clock_mhz)
        said = f"{d.name}: a GPU runs at {{{{ $value }}}} MHz, locked to {d.sm_clock_mhz}"
        expression = f"max(DCGM_FI_DEV_SM_CLOCK) > {most}"
        found.append(_alert(d, "ClockLockLost", expression, "10m", said, text))
    if d.power_limit_w is not None:
        most = plain(_ABOVE_LIMIT * d.power_limit_w)
        said = f"{d.name}: a GPU draws {{{{ $value }}}} W, limited to {plain(d.power_limit_w)}"
        expression = f"max(avg_over_time(DCGM_FI_DEV_POWER_USAGE[5m])) > {most}"
        found.append(_alert(d, "PowerLimitLost", expression, "10m", said, text))
    return found


def _alert(
    d: Deployment, name: str, expression: str, wait: str, summary: str, advice: str, **more: str
) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expression,
        "for": wait,
        "labels": {"severity": "warning", "deployment": d.name, **more},
        "annotations": {"summary": summary, "description": advice},
    }
