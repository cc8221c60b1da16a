"""Replica type: one deployable configuration with its operating points and what a switch costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tuner.analysis.deployment.switching import Sleep
from tuner.configuration import Configuration
from tuner.records import FloatArray

DRAIN_ANSWERS = 3.0  # mean answers; few last longer


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A configuration at a load: requests/s, mean power and its 95 % interval, W.

    `metrics` are those of the window that it was measured in.
    """

    rate: float
    power_w: float
    low_w: float
    high_w: float
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ReplicaType:
    """What replicas of one configuration do; powers and energies are of all GPUs of a replica.

    Attributes:
        name: for people, unique in a plan.
        study, trial: where it was measured.
        gpus: that one replica takes.
        capacity: the highest rate at which it met every SLO, requests/s.
        points: by rate; the last one is the capacity or less.
        answer_s: mean time of an answer at the least load, s.
        idle_w, off_w: with the model loaded, and without a server.
        start_s, start_energy_j: of a start.
        sleep: the level of sleep to use; None if the server has none, or it saves nothing.
        estimated: what of this was not measured, a half sentence each.
    """

    name: str
    study: str
    trial: int
    configuration: Configuration
    gpus: int
    capacity: float
    points: tuple[OperatingPoint, ...]
    answer_s: float
    idle_w: float
    off_w: float
    start_s: float
    start_energy_j: float
    sleep: Sleep | None = None
    estimated: tuple[str, ...] = ()

    def power_w(self, rates: FloatArray) -> FloatArray:
        """Return the power of a replica at each rate, W.

        Linear between the points. Below the first one the power above idle is in proportion to the
        share of time in which any request is under way, 1 - exp(-rate x time of an answer): the
        power of a GPU that works does not vanish with the load. Above the last one it is held.
        """
        known = np.array([point.rate for point in self.points])
        powers_w = np.array([point.power_w for point in self.points])
        first, first_w = known[0], powers_w[0]
        busy = -np.expm1(-rates * self.answer_s) / -np.expm1(-first * self.answer_s)
        few = self.idle_w + (first_w - self.idle_w) * busy
        return np.asarray(np.where(rates < first, few, np.interp(rates, known, powers_w)))

    @property
    def start_extra_j(self) -> float:
        """What a start uses beyond GPUs that stay off, J."""
        return max(self.start_energy_j - self.off_w * self.start_s, 0.0)

    @property
    def drain_j(self) -> float:
        """What a replica uses beyond one without a server until its last answer has ended, J.

        That takes about three mean answers, at the power of the least load.
        """
        return max(self.points[0].power_w - self.off_w, 0.0) * DRAIN_ANSWERS * self.answer_s

    @property
    def wake_extra_j(self) -> float:
        """What waking uses beyond sleep, J."""
        one = self.sleep
        return 0.0 if one is None else max(one.wake_energy_j - one.power_w * one.wake_s, 0.0)

    @property
    def sleep_extra_j(self) -> float:
        """What falling asleep uses beyond sleep, J."""
        one = self.sleep
        return 0.0 if one is None else max(one.sleep_energy_j - one.power_w * one.sleep_s, 0.0)

    @property
    def asleep_w(self) -> float:
        """Power asleep, W; idle without sleep."""
        return self.idle_w if self.sleep is None else self.sleep.power_w

    @property
    def wake_s(self) -> float:
        """Lead time of waking, s."""
        return 0.0 if self.sleep is None else self.sleep.wake_s
