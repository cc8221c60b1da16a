"""Workers: what each card of a study does at present, as far as the store says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from tuner.analysis.cards.figures import card_figures
from tuner.store import ProbeKind, RepeatKind, RepeatRow, TrialRow, TrialState

_PROBES: Mapping[ProbeKind, str] = MappingProxyType(
    {
        ProbeKind.HEADROOM: "headroom",
        ProbeKind.STRESS: "stress",
        ProbeKind.IDLE: "idle power",
        ProbeKind.LOAD: "operating point",
        ProbeKind.SWITCHING: "start and sleep",
    }
)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One card: what it runs and for how long, None where it runs nothing.

    `measured` counts its evaluations so far. `outlier` says what is wrong with the card.
    """

    card: str
    host: str
    runs: str | None
    for_s: float | None
    measured: int
    outlier: str | None


def worker_states(
    trials: Sequence[TrialRow], repeats: Sequence[RepeatRow], now: datetime
) -> list[WorkerState]:
    """Return the state of each card by name; empty for a study that has none of its own.

    `repeats` are the repeats and probes.
    """
    outliers = {one.card: one.outlier for one in card_figures(trials, repeats)}
    by_card: dict[str, list[TrialRow | RepeatRow]] = {}
    rows: list[TrialRow | RepeatRow] = [*trials, *repeats]
    for row in rows:
        if row.owner.card is not None:
            by_card.setdefault(row.owner.card, []).append(row)
    return [_state(card, by_card[card], now, outliers.get(card)) for card in sorted(by_card)]


def _state(
    card: str, rows: Sequence[TrialRow | RepeatRow], now: datetime, outlier: str | None
) -> WorkerState:
    latest = max(rows, key=lambda row: row.started_at)
    is_busy = latest.state is TrialState.RUNNING
    return WorkerState(
        card,
        latest.owner.host,
        what_runs(latest) if is_busy else None,
        max(0.0, (now - latest.started_at).total_seconds()) if is_busy else None,
        sum(row.state is not TrialState.RUNNING for row in rows),
        outlier,
    )


def what_runs(row: TrialRow | RepeatRow) -> str:
    """Return what an evaluation is, in words."""
    if isinstance(row, TrialRow):
        return f"trial {row.number}"
    if isinstance(row.kind, RepeatKind):
        return f"trial {row.trial} again"
    if row.kind is ProbeKind.CARD:
        return "the default, to compare cards"
    return f"{_PROBES[row.kind]} of trial {row.trial}"
