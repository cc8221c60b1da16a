"""Energy price: the cost of energy in money."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.errors import UsageError


@dataclass(frozen=True, slots=True)
class Price:
    """The price of electric energy, in `currency` per kWh."""

    per_kwh: float
    currency: str

    def __post_init__(self) -> None:
        if not 0.0 < self.per_kwh < math.inf:
            raise UsageError(f"--price {self.per_kwh:g} is no price per kWh; write e.g. 0.30")

    def cost(self, kwh: float | None) -> float | None:
        """Return what so much energy costs; None where the energy is unknown."""
        return None if kwh is None else kwh * self.per_kwh
