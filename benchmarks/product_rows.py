"""Matrix products measured on a real GPU, which hold the fit to what its kernels can do.

Rows times a matrix of 8,192 x 8,192 in 16 bits, other weights each time, for some seconds at the
default limit; made by `real_gpu/products.py`. Servers that mostly decode say little of compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.catalog.gpu import Gpu
from tuner.emulator.engine.power import PowerModel
from tuner.emulator.engine.step import StepParts

SIDE = 8192


@dataclass(frozen=True, slots=True)
class Product:
    """Means over some seconds; the clock is what the limit left."""

    rows: int
    tflop_s: float
    power_w: float
    sm_clock_mhz: float


PRODUCTS: Mapping[str, tuple[Product, ...]] = {
    "H100-SXM": (
        Product(8192, 670.1, 695.9, 1365),
        Product(1024, 673.4, 698.4, 1350),
        Product(512, 652.9, 698.7, 1350),
        Product(256, 566.1, 698.8, 1290),
        Product(128, 333.1, 696.4, 1530),
        Product(64, 170.0, 686.1, 1965),
        Product(16, 43.2, 540.4, 1980),
        Product(1, 2.8, 503.7, 1980),
    )
}


def product_errors(gpu: Gpu) -> NDArray[np.float64]:
    """Return the logarithms of predicted / measured speed and power, at the measured clocks."""
    power = PowerModel.under(gpu, {})
    errors = []
    for product in PRODUCTS.get(gpu.name, ()):
        flop = 2.0 * product.rows * SIDE * SIDE
        moved = 2.0 * (SIDE * SIDE + 2 * product.rows * SIDE)
        parts = StepParts(
            linear_compute_s=flop / (gpu.bf16_tflops * 1e12 * gpu.matrix_efficiency),
            linear_memory_s=moved / (gpu.memory_tb_s * 1e12 * gpu.memory_efficiency),
            expert_compute_s=0.0,
            expert_memory_s=0.0,
            attention_compute_s=0.0,
            attention_memory_s=0.0,
            kernel_s=0.0,
            prefill_s=0.0,
            host_s=0.0,
            host_overlap=1.0,
            memory_bytes=moved,
            matrix_s=flop / (gpu.bf16_tflops * 1e12 * gpu.matrix_efficiency),
        )
        cost = power.at_clock(parts, product.sm_clock_mhz)
        speed = flop / cost.duration_s / (product.tflop_s * 1e12)
        errors += [np.log(speed), np.log(cost.power_w / product.power_w)]
    return np.array(errors)
