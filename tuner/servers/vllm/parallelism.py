"""How many GPUs a configuration takes."""

from __future__ import annotations

import math

from tuner.configuration import Configuration

PARALLEL_SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


def gpus_used(configuration: Configuration) -> int:
    """Return how many GPUs a server with these flags takes."""
    return math.prod(int(configuration.flags.get(size, 1)) for size in PARALLEL_SIZES)
