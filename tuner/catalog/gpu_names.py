"""GPU names: map NVML's name of a real GPU to its entry in the catalog."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from tuner.catalog.gpu import Gpu, gpu_names, load_gpu

_NVML_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "NVIDIA H100 80GB HBM3": "H100-SXM",
        "NVIDIA H200": "H200-SXM",
        "NVIDIA B200": "B200-SXM",
        "NVIDIA A100-SXM4-80GB": "A100-SXM-80G",
        "NVIDIA L4": "L4",
        "NVIDIA L40S": "L40S",
        "NVIDIA GeForce RTX 5090": "RTX-5090",
        "NVIDIA GeForce RTX 3090": "RTX-3090",
        "NVIDIA RTX 4000 Ada Generation": "RTX-4000-ADA",
        "NVIDIA RTX PRO 6000 Blackwell Server Edition": "RTX-PRO-6000",
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "RTX-PRO-6000",
    }
)


def emulated_gpu(nvml_name: str) -> Gpu | None:
    """Return the catalog name of a GPU, also of `2 x NVIDIA H200`; None if it has no entry.

    A catalog name is returned unchanged.
    """
    name = re.sub(r"^\d+ x ", "", nvml_name)
    name = _NVML_NAMES.get(name, name)
    return load_gpu(name) if name in gpu_names() else None
