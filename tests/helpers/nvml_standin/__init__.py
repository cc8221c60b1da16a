"""A software NVML for tests; see standin.py."""

from helpers.nvml_standin.standin import Standin, StandinDevice

__all__ = ["Standin", "StandinDevice"]
