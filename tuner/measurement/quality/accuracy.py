"""Accuracy of two configurations on the same questions: intervals, and a paired test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The share of right answers, with its 95 % interval (Wilson 1927)."""

    right: int
    asked: int

    @property
    def share(self) -> float:
        """Right answers / questions."""
        return self.right / self.asked

    @property
    def interval(self) -> tuple[float, float]:
        """The lower and the upper end."""
        n, p = self.asked, self.share
        spread = _Z**2 / n
        centre = (p + spread / 2) / (1 + spread)
        half = _Z / (1 + spread) * math.sqrt(p * (1 - p) / n + spread / (4 * n))
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class AccuracyChange:
    """What a configuration does to the accuracy, beside the baseline on the same questions.

    Attributes:
        ours: the configuration's.
        theirs: the baseline's.
        lost: questions that only the baseline answers right.
        won: questions that only the configuration answers right.
    """

    ours: Accuracy
    theirs: Accuracy
    lost: int
    won: int

    @property
    def drop(self) -> float:
        """The baseline's share of right answers - the configuration's."""
        return self.theirs.share - self.ours.share

    @property
    def p_value(self) -> float:
        """Of the exact McNemar test: how likely lost and won differ so much by chance."""
        discordant = self.lost + self.won
        if discordant == 0:
            return 1.0
        least = min(self.lost, self.won)
        logs = [
            math.lgamma(discordant + 1) - math.lgamma(k + 1) - math.lgamma(discordant - k + 1)
            for k in range(least + 1)
        ]
        tail = sum(math.exp(log - discordant * math.log(2.0)) for log in logs)
        return min(1.0, 2.0 * tail)

    def __str__(self) -> str:
        low, high = self.ours.interval
        return (
            f"{100.0 * self.ours.share:.1f} % right ({100.0 * low:.1f} to {100.0 * high:.1f} %, "
            f"the baseline {100.0 * self.theirs.share:.1f} %; {self.lost} lost, {self.won} won of "
            f"{self.ours.asked}, McNemar p = {self.p_value:.2g})"
        )


def accuracy_change(ours: Sequence[bool], theirs: Sequence[bool]) -> AccuracyChange | None:
    """Compare grades of the same questions; None if they are not of the same ones, or of none."""
    if not ours or len(ours) != len(theirs):
        return None
    pairs = list(zip(ours, theirs, strict=True))
    return AccuracyChange(
        Accuracy(sum(ours), len(ours)),
        Accuracy(sum(theirs), len(theirs)),
        lost=sum(b and not a for a, b in pairs),
        won=sum(a and not b for a, b in pairs),
    )
