"""How the report names knobs and metrics."""

from __future__ import annotations

from tuner.configuration import Value


def metric_label(name: str) -> str:
    """Return `p99 TPOT` for `p99_tpot_ms`, and plain words for the others."""
    statistic, _, rest = name.partition("_")
    if rest.endswith("_ms"):
        return f"{statistic} {rest.removesuffix('_ms').upper()}"
    words = {
        "energy_per_output_token_j": "energy per output token",
        "energy_per_request_j": "energy per request",
        "mean_power_w": "mean power",
        "output_throughput_tok_s": "output throughput",
        "request_throughput_req_s": "request throughput",
        "goodput_req_s": "goodput",
        "slo_attainment": "SLO attainment",
    }
    return words.get(name, name)


def knob_text(value: Value | None) -> str:
    """Return a knob's value as the tables show it."""
    if value is None:
        return "default"
    return f"{value:g}" if isinstance(value, float) else str(value)
