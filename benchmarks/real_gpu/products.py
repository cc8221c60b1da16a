"""Speed, power and clock of matrix products on a real GPU, at the limits that it is found at.

    python benchmarks/real_gpu/products.py

Prints a line of JSON for each shape: a square product is bound by compute; one with few rows reads
its weights, which are larger than any cache. `fit_emulator.py` holds the emulator to the first.
Needs torch and nvidia-ml-py; only reads.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import pynvml
import torch

SECONDS = 8.0
WARM_S = 3.0
BATCH = 20
WEIGHTS = 16  # matrices of 8192 x 8192, used in turn
SIDE = 8192


def main() -> None:
    """Measure each shape for some seconds."""
    pynvml.nvmlInit()
    gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
    weights = [torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(WEIGHTS)]
    for rows in (8192, 1024, 512, 256, 128, 64, 16, 1):
        inputs = torch.randn(rows, SIDE, device="cuda", dtype=torch.bfloat16)
        sys.stdout.write(json.dumps(measured(gpu, inputs, weights)) + "\n")
        sys.stdout.flush()


def measured(gpu: object, inputs: torch.Tensor, weights: list[torch.Tensor]) -> dict[str, object]:
    """Multiply over and over; figures are those after the warm-up."""
    out = torch.empty_like(inputs)
    rows, products = inputs.shape[0], 0
    clocks_mhz: list[int] = []
    began_s = start_s = time.monotonic()
    start_mj = 0
    while (now_s := time.monotonic()) - began_s < WARM_S + SECONDS:
        if now_s - began_s >= WARM_S and start_mj == 0:
            products, start_s = 0, now_s
            start_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
        for index in range(BATCH if rows > 1024 else 20 * BATCH):
            torch.mm(inputs, weights[index % WEIGHTS], out=out)
            products += 1
        clocks_mhz.append(pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM))
        torch.cuda.synchronize()
    elapsed_s = time.monotonic() - start_s
    used_j = (pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) - start_mj) / 1e3
    return {
        "rows": rows,
        "tflop_s": round(2 * rows * SIDE * SIDE * products / elapsed_s / 1e12, 1),
        "weights_tb_s": round(2 * SIDE * SIDE * products / elapsed_s / 1e12, 3),
        "power_w": round(used_j / elapsed_s, 1),
        "sm_clock_mhz": statistics.median(clocks_mhz[len(clocks_mhz) // 3 :]),
    }


if __name__ == "__main__":
    main()
