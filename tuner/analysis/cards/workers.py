"""Workers: what each card of a study does at present, as far as the store says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tuner.analysis.cards.figures import card_figures
from tuner.store import ProbeKind, RepeatKind, RepeatRow, TrialRow, TrialState


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
        _what(latest) if is_busy else None,
        max(0.0, (now - latest.started_at).total_seconds()) if is_busy else None,
        sum(row.state is not TrialState.RUNNING for row in rows),
        outlier,
    )


def _what(row: TrialRow | RepeatRow) -> str:
    if isinstance(row, TrialRow):
        return f"trial {row.number}"
    if row.kind is ProbeKind.CARD:
        return "the default, to compare cards"
    why = "again" if isinstance(row.kind, RepeatKind) else f"for {row.kind.value}"
    return f"trial {row.trial} {why}"
