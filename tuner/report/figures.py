"""The figures of a trial that reports show: computed once, shown the same everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.configuration import Value
from tuner.report.trials import ENERGY, meets_slo, metric
from tuner.slo import Slo
from tuner.store.rows import TrialRow, TrialState

_J_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Figures:
    """What reports show of a trial. `saving_percent` is energy per token against the default."""

    number: int
    baseline: bool
    state: TrialState
    knobs: dict[str, Value]
    meets_slo: bool | None
    energy_per_output_token_j: float | None
    saving_percent: float | None
    kwh_per_million_output_tokens: float | None
    p99_tpot_ms: float | None
    p99_ttft_ms: float | None
    output_throughput_tok_s: float | None
    mean_power_w: float | None
    reason: str | None


def figures(trial: TrialRow, baseline: TrialRow | None, slos: Sequence[Slo]) -> Figures:
    """Return the figures of a trial beside the default's."""
    energy_j = metric(trial, ENERGY)
    return Figures(
        number=trial.number,
        baseline=trial.baseline,
        state=trial.state,
        knobs=trial.configuration.knobs(),
        meets_slo=meets_slo(trial, slos),
        energy_per_output_token_j=energy_j,
        saving_percent=saving_percent(energy_j, metric(baseline, ENERGY)),
        kwh_per_million_output_tokens=kwh_per_million_tokens(energy_j),
        p99_tpot_ms=metric(trial, "p99_tpot_ms"),
        p99_ttft_ms=metric(trial, "p99_ttft_ms"),
        output_throughput_tok_s=metric(trial, "output_throughput_tok_s"),
        mean_power_w=metric(trial, "mean_power_w"),
        reason=None if trial.failure is None else trial.failure.reason,
    )


def saving_percent(energy_j: float | None, default_j: float | None) -> float | None:
    """Return 100 x (1 - energy / default), or None if either is unknown or the default is 0."""
    if energy_j is None or default_j is None or default_j == 0.0:
        return None
    return 100.0 * (1.0 - energy_j / default_j)


def kwh_per_million_tokens(energy_per_token_j: float | None) -> float | None:
    """Return energy per token (J) x 1e6 tokens / 3.6e6 J per kWh."""
    return None if energy_per_token_j is None else energy_per_token_j * 1e6 / _J_PER_KWH
