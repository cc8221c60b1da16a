"""What is fitted, within which bounds, and what is expected of it before anything is measured.

A prior is a value and the standard deviation of its logarithm. It keeps constants that the rows
hardly tell apart, as host time and short kernels of synchronous scheduling, at values that a
profiler shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Prior(NamedTuple):
    low: float
    high: float
    value: float
    deviation: float


ENGINE: Mapping[str, Prior] = {
    "layer_us": Prior(1, 120, 30, 0.4),
    "expert_layer_us": Prior(1, 300, 40, 0.8),
    "sequence_us": Prior(0.5, 100, 15, 0.5),
    "quantize_us": Prior(1, 60, 8, 0.6),
    "logit_bytes": Prior(4, 200, 12, 0.3),
    "sorting_bytes": Prior(4, 1500, 400, 1.0),
    "routing_spread": Prior(0.05, 1, 0.7, 0.4),
    "expert_skew": Prior(0.001, 1, 0.2, 0.7),
    "expert_matrix_share": Prior(0.1, 1, 0.5, 0.4),
    "padding_energy": Prior(0.01, 1, 0.5, 0.8),
    "expert_tile_share": Prior(0.3, 1, 0.67, 0.2),
    "roofline_overlap": Prior(0.05, 1, 0.75, 0.3),
    "prefill_layer_us": Prior(1, 800, 80, 0.8),
    "prefill_latent_us": Prior(1, 3000, 300, 1.0),
    "prefill_expert_us": Prior(1, 1500, 60, 1.0),
    "prefill_state_us": Prior(1, 3000, 300, 1.0),
    "all_reduce_us": Prior(1, 60, 12, 0.5),
    "all_reduce_growth": Prior(0.01, 2, 0.3, 0.8),
    "host_step_us": Prior(100, 8000, 1500, 0.4),
    "host_sequence_us": Prior(1, 150, 10, 0.5),
}
CARD: Mapping[str, Prior] = {
    "matrix_efficiency": Prior(0.3, 1, 0.8, 0.2),
    "memory_efficiency": Prior(0.5, 0.97, 0.86, 0.06),
    "expert_efficiency": Prior(0.3, 0.97, 0.8, 0.15),
    "attention_efficiency": Prior(0.1, 0.97, 0.8, 0.2),
    "link_efficiency": Prior(0.05, 1, 0.4, 0.5),
    "unpack_tera_s": Prior(0.5, 500, 20, 1.2),
    "active_w": Prior(1, 400, 40, 1.0),
    "stall_w": Prior(10, 900, 200, 0.6),
    "compute_w": Prior(50, 2500, 1000, 0.5),
    "eight_bit_energy": Prior(1.0, 2.0, 1.3, 0.15),
    "prefill_activity": Prior(0.01, 1, 0.3, 0.8),
    "memory_pj_per_byte": Prior(10, 120, 70, 0.2),
}
VOLTAGE: Mapping[str, Prior] = {"knee_mhz": Prior(400, 1500, 900, 0.4)}
SERVED: Mapping[str, Prior] = {  # what only loads on a served model tell
    "token_us": Prior(20, 160, 80, 0.25),
    "request_us": Prior(1000, 9000, 4000, 0.3),
    "eager_layer_us": Prior(200, 600, 370, 0.1),
}
LIMITS: Mapping[str, Prior] = {  # of a card whose rows are sweeps of limits; watts for 600 W
    "knee_share": Prior(0.12, 0.8, 0.4, 0.5),  # of the range of clocks
    "knee_voltage": Prior(0.35, 0.98, 0.65, 0.3),
    "bandwidth_share": Prior(0.2, 1.2, 0.6, 0.5),  # of the highest clock
    "memory_efficiency": Prior(0.6, 0.97, 0.88, 0.05),
    "matrix_efficiency": Prior(0.3, 1, 0.8, 0.2),
    "unpack_tera_s": Prior(0.2, 60, 3, 1.5),
    "active_w": Prior(1, 300, 40, 1.0),
    "stall_w": Prior(5, 600, 100, 0.8),
    "compute_w": Prior(20, 1500, 250, 0.8),
    "memory_pj_per_byte": Prior(10, 150, 60, 0.5),
}


def columns(priors: Mapping[str, Prior]) -> tuple[Array, Array, Array, Array]:
    """Return the logarithms of bounds and values, and the deviations."""
    table = np.array(list(priors.values()))
    low, high, value = np.log(table[:, :3]).T
    return low, high, value, table[:, 3]


def cauchy(errors: Array) -> Array:
    """Return residuals whose squares add up to Cauchy's loss: outliers pull no more."""
    found: Array = np.sign(errors) * np.sqrt(2 * np.log1p(errors**2 / 2))
    return found


def pseudo_huber(errors: Array) -> Array:
    """Return residuals whose squares grow linearly far out."""
    found: Array = np.sign(errors) * np.sqrt(2 * (np.sqrt(1 + errors**2) - 1))
    return found
