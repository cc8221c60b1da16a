"""A software NVML for tests; see standin.py."""

from nvml_standin.standin import Standin, StandinDevice

__all__ = ["Standin", "StandinDevice"]
