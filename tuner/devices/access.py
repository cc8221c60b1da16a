"""What a process that talks to NVML may do."""

from __future__ import annotations

from enum import StrEnum


class Access(StrEnum):
    """With `READ`, the process refuses everything that sets, whatever rights it runs with."""

    READ = "read"
    SET = "set"
