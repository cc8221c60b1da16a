"""Trial summary: the figures of a trial that all reports show, computed in one place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tuner.analysis.outcomes import energy_j, meets_slo, metric
from tuner.analysis.verdicts import Confirmation
from tuner.configuration import Value
from tuner.measurement.statistics.compare import Verdict
from tuner.measurement.statistics.unseen_traffic import SloVerdict
from tuner.metrics import OUTPUT_KINDS, TEXT, Output, OutputKind, kind_of
from tuner.slo import Slo
from tuner.store.rows import TrialRow, TrialState

_J_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class TrialSummary:
    """What reports show of a trial. `saving_percent` is of the energy per unit.

    Of a confirmed trial every figure is that of its repeats, and the saving has the drift of the
    default taken out. The default is *confirmed* once it is repeated, also where it misses the SLO.
    The saving of `pairs` measurements beside the default on unseen traffic goes before that of the
    search's window, also where too few of them confirm it. Intervals are 95 % ones; `intervals` are
    those of every repeated metric, by its name and in its unit. `changes_percent` is 100 x (value /
    default - 1) of what else a reader weighs, of a confirmed trial on the same traffic.
    `same_outputs` is a share, see `tuner.measurement`. `slo_miss_chance` is how likely a window on
    traffic not seen misses an SLO: the verdict *met* allows 0.05. `requests` is how many finished
    in the windows that the percentiles are taken from.
    """

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
    changes_percent: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    confirmed: bool = False
    repeats: int = 0
    energy_interval_j: tuple[float, float] | None = None
    saving_interval_percent: tuple[float, float] | None = None
    tied_with_default: bool | None = None
    slo_verdict: str | None = None
    slo_miss_chance: float | None = None
    same_outputs: float | None = None
    same_outputs_prefix: float | None = None
    mean_tpot_ms: float | None = None
    mean_e2el_ms: float | None = None
    offered_rate_req_s: float | None = None
    requests: int | None = None
    pairs: int = 0
    output: str = Output.TEXT.value
    energy_per_unit_j: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def kind(self) -> OutputKind:
        """The unit that the energy is of, and the metrics in that unit."""
        return OUTPUT_KINDS[Output(self.output)]

    @property
    def kwh_per_many(self) -> float | None:
        """The energy of `kind.many`: a million tokens, 1,000 images or an hour of video, kWh."""
        return kwh_of(self.kind, self.energy_per_unit_j)

    @property
    def saves_surely(self) -> bool:
        """Whether repeats confirm a saving above the noise, and every SLO on traffic not seen."""
        saves = (self.saving_percent or 0.0) > 0.0 and self.tied_with_default is False
        return self.confirmed and saves and self.slo_verdict == SloVerdict.MET


def trial_summary(
    trial: TrialRow,
    baseline: TrialRow | None,
    slos: Sequence[Slo],
    known: Confirmation | None = None,
    requests: int | None = None,
) -> TrialSummary:
    """Return the figures of a trial against the default's.

    `known` is its repeats' verdict, `requests` how many finished ones the figures are made of.
    """
    ours_j = energy_j(trial)
    shown = TrialSummary(
        number=trial.number,
        baseline=trial.baseline,
        state=trial.state,
        knobs=trial.configuration.knobs(),
        meets_slo=meets_slo(trial, slos),
        energy_per_output_token_j=metric(trial, TEXT.energy),
        saving_percent=saving_percent(ours_j, energy_j(baseline)),
        kwh_per_million_output_tokens=kwh_of(TEXT, metric(trial, TEXT.energy)),
        p99_tpot_ms=metric(trial, "p99_tpot_ms"),
        p99_ttft_ms=metric(trial, "p99_ttft_ms"),
        output_throughput_tok_s=metric(trial, "output_throughput_tok_s"),
        mean_power_w=metric(trial, "mean_power_w"),
        reason=None if trial.failure is None else trial.failure.reason,
        changes_percent=_changes_percent(trial, baseline),
        requests=requests,
        mean_tpot_ms=metric(trial, "mean_tpot_ms"),
        mean_e2el_ms=metric(trial, "mean_e2el_ms"),
        offered_rate_req_s=metric(trial, "offered_rate_req_s"),
        output=_kind(trial).output.value,
        energy_per_unit_j=ours_j,
        metrics={} if trial.measurement is None else dict(trial.measurement.metrics),
    )
    return shown if known is None else _with_repeats(shown, known)


def _with_repeats(shown: TrialSummary, known: Confirmation) -> TrialSummary:
    """Add the verdict of the repeats."""
    energy = known.estimates.get(shown.kind.energy)
    spread = None if energy is None or energy.interval is None else energy.interval
    found = replace(
        shown,
        meets_slo=shown.meets_slo and not (shown.baseline and known.slo is SloVerdict.MISSED),
        confirmed=known.stands_for(is_default=shown.baseline),
        repeats=known.repeats,
        pairs=known.pairs,
        energy_interval_j=None if spread is None else (spread.low, spread.high),
        intervals={
            name: (e.interval.low, e.interval.high)
            for name, e in known.estimates.items()
            if e.interval is not None
        },
        slo_verdict=known.slo.value,
        slo_miss_chance=known.miss_chance,
        same_outputs=None if known.agreement is None else known.agreement.identical,
        same_outputs_prefix=None if known.agreement is None else known.agreement.common_prefix,
    )
    compared = known.energy
    if shown.baseline or compared is None or not (known.is_confirmed or known.pairs):
        return found
    ends = compared.interval
    return replace(
        found,
        changes_percent=_on_the_same_traffic(shown.changes_percent, known),
        saving_percent=-100.0 * compared.difference,
        saving_interval_percent=None if ends is None else (-100.0 * ends.high, -100.0 * ends.low),
        tied_with_default=None if ends is None else compared.verdict is Verdict.TIED,
    )


def _on_the_same_traffic(
    changes_percent: Mapping[str, float], known: Confirmation
) -> dict[str, float]:
    """Return the changes, those of the stretches that the default was measured on too."""
    paired = known.changes if known.is_confirmed else {}
    return {
        name: 100.0 * paired[name] if name in paired else changes_percent[name]
        for name in changes_percent
    }


def _changes_percent(trial: TrialRow, baseline: TrialRow | None) -> dict[str, float]:
    compared = (*_kind(trial).costs, "mean_power_w")
    pairs = {name: (metric(trial, name), metric(baseline, name)) for name in compared}
    return {
        name: 100.0 * (ours / theirs - 1.0)
        for name, (ours, theirs) in pairs.items()
        if ours is not None and theirs is not None and theirs > 0.0
    }


def _kind(trial: TrialRow) -> OutputKind:
    return TEXT if trial.measurement is None else kind_of(trial.measurement.metrics)


def saving_percent(energy_j: float | None, default_j: float | None) -> float | None:
    """Return 100 x (1 - energy / default), or None if either is unknown or the default is 0."""
    if energy_j is None or default_j is None or default_j == 0.0:
        return None
    return 100.0 * (1.0 - energy_j / default_j)


def kwh_of(kind: OutputKind, energy_per_unit_j: float | None) -> float | None:
    """Return the energy of `kind.many` units, kWh; None if that of one is unknown."""
    return None if energy_per_unit_j is None else energy_per_unit_j * kind.many_units / _J_PER_KWH
