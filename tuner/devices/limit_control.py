"""The protocol of GPU limits: power limit and SM clock, read and changed by UUID.

How to add another vendor's limits (say AMD's):

1. Write `devices/VENDOR/`, with a class that has the methods of `LimitControl`. Units are watts and
   MHz; convert the library's milliwatts where they are read, and nowhere else.
2. Let a setter read back what it set and raise `OperatorNeededError` if it is not in force. A lease
   (`devices/leases`) writes down the limits found before it calls a setter, and calls setters again
   to restore them. So setting a GPU to its present value must be harmless.
3. Give every call a deadline. A driver that hangs must not hang the tuner: NVIDIA's library runs in
   a process of its own (`devices/nvidia/agent.py`), which is killed.
4. Refuse every setter under `Access.READ`, in the one place that all setters go through.
5. Open it in `devices/open.py`, and add it to `tests/devices/test_limit_contract.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tuner.errors import PreflightError


class Access(StrEnum):
    """What a process may do to GPUs. With `READ` it refuses every setter, even as root."""

    READ = "read"
    SET = "set"


class PermissionDeniedError(PreflightError):
    """This user may not change the GPU's settings."""


class ReadOnlyDeviceError(PreflightError):
    """Nobody may: the GPUs were opened to be read alone."""


@dataclass(frozen=True, slots=True)
class LimitState:
    """The limits of one GPU as they are now; None is unknown.

    NVML cannot say whether clocks are locked: `locked_sm_clock_mhz` is set only after a lock
    through the same control, and None means not locked or not knowable.
    """

    uuid: str
    name: str
    power_limit_w: float | None
    default_power_limit_w: float | None
    min_power_limit_w: float | None
    max_power_limit_w: float | None
    enforced_power_limit_w: float | None
    locked_sm_clock_mhz: int | None


@dataclass(frozen=True, slots=True)
class PowerProfiles:
    """Workload power profiles of one GPU, by name: those it has, and those requested and in force.

    Profiles are the vendor's own settings for a kind of work, such as `max_q` or `llm_inference`.
    """

    available: tuple[str, ...]
    requested: tuple[str, ...]
    enforced: tuple[str, ...]


class LimitReader(Protocol):
    """Reads limits. Every call may raise `OperatorNeededError` if a GPU does not answer."""

    def uuids(self) -> tuple[str, ...]:
        """Return the GPUs that were opened, whether a server may see them or not."""

    def state(self, uuid: str) -> LimitState:
        """Read the limits of one GPU."""


class LimitControl(LimitReader, Protocol):
    """Reads and changes limits. Every call may raise `OperatorNeededError`, as of a reader."""

    def set_power_limit(self, uuid: str, watts: float) -> None:
        """Set and read back.

        Raises `UsageError` out of range, `PermissionDeniedError`, `ReadOnlyDeviceError` if opened
        so, and `OperatorNeededError` if the limit does not read back.
        """

    def lock_sm_clock(self, uuid: str, mhz: int) -> None:
        """Lock to the nearest supported clock; raises as `set_power_limit` does."""

    def unlock_sm_clock(self, uuid: str) -> None:
        """Let the driver choose the clock again."""

    def power_profiles(self, uuid: str) -> PowerProfiles | None:
        """Read the workload power profiles of one GPU; None if it has none."""

    def set_power_profiles(self, uuid: str, names: tuple[str, ...]) -> None:
        """Request exactly these profiles and see them in force; raises as `set_power_limit`."""

    def memory_used_bytes(self, uuid: str) -> int:
        """Return how much device memory is taken, by any process."""

    def close(self) -> None:
        """End the connection. What was set stays set."""
