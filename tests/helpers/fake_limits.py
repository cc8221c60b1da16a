"""Limits of GPUs in memory: the same promises as NVML's, without a process behind them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.devices.leases.lease_book import LeaseBook, leased
from tuner.devices.limit_control import LimitState, PermissionDeniedError, PowerProfiles
from tuner.errors import OperatorNeededError, PreflightError, UsageError


@dataclass(slots=True)
class FakeGpu:
    """One GPU, which outlives the controls that are opened on it."""

    uuid: str
    limit_w: float = 600.0  # as somebody set it, not the default
    locked_mhz: int | None = None
    default_w: float = 700.0
    memory_bytes: int = 0
    permitted: bool = True
    lost: bool = False
    profiles: tuple[str, ...] | None = None  # requested; None for a GPU that has none
    stubborn: bool = False  # takes a setting without an error, and does not keep it


@dataclass(slots=True)
class FakeLimits:
    """A control over some GPUs. Like NVML it knows of no clock lock but its own."""

    gpus: dict[str, FakeGpu]
    calls: list[str] = field(default_factory=list)
    _locked_here: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, *gpus: FakeGpu) -> FakeLimits:
        return cls({gpu.uuid: gpu for gpu in gpus})

    @contextmanager
    def opened(self, uuid: str) -> Iterator[FakeLimits | None]:
        """As `opened_limits` of one GPU."""
        yield self if uuid in self.gpus else None

    def uuids(self) -> tuple[str, ...]:
        return tuple(self.gpus)

    def state(self, uuid: str) -> LimitState:
        gpu = self._gpu(uuid)
        return LimitState(
            uuid=uuid,
            name="Fake GPU",
            power_limit_w=gpu.limit_w,
            default_power_limit_w=gpu.default_w,
            min_power_limit_w=200.0,
            max_power_limit_w=700.0,
            enforced_power_limit_w=gpu.limit_w,
            locked_sm_clock_mhz=self._locked_here.get(uuid),
        )

    def set_power_limit(self, uuid: str, watts: float) -> None:
        gpu = self._to_change(uuid, f"power {watts:g}")
        if not 200.0 <= watts <= 700.0:
            raise UsageError(f"{watts:g} W is out of range")
        if not gpu.stubborn:
            gpu.limit_w = watts

    def lock_sm_clock(self, uuid: str, mhz: int) -> None:
        gpu = self._to_change(uuid, f"lock {mhz}")
        if not 210 <= mhz <= 1980:
            raise UsageError(f"{mhz} MHz is out of range")
        gpu.locked_mhz = self._locked_here[uuid] = mhz

    def unlock_sm_clock(self, uuid: str) -> None:
        gpu = self._to_change(uuid, "unlock")
        if not gpu.stubborn:
            gpu.locked_mhz = None
            self._locked_here.pop(uuid, None)

    def power_profiles(self, uuid: str) -> PowerProfiles | None:
        gpu = self._gpu(uuid)
        if gpu.profiles is None:
            return None
        return PowerProfiles(("max_q", "inference"), gpu.profiles, gpu.profiles)

    def set_power_profiles(self, uuid: str, names: tuple[str, ...]) -> None:
        gpu = self._to_change(uuid, f"profiles {','.join(names)}")
        if not gpu.stubborn:
            gpu.profiles = names

    def memory_used_bytes(self, uuid: str) -> int:
        return self._gpu(uuid).memory_bytes

    def close(self) -> None:
        self.calls.append("close")

    def _gpu(self, uuid: str) -> FakeGpu:
        try:
            gpu = self.gpus[uuid]
        except KeyError:
            raise UsageError(f"no GPU {uuid}") from None
        if gpu.lost:
            raise OperatorNeededError(f"GPU {uuid} is lost")
        return gpu

    def _to_change(self, uuid: str, call: str) -> FakeGpu:
        self.calls.append(call)
        gpu = self._gpu(uuid)
        if not gpu.permitted:
            raise PermissionDeniedError("only root may change the GPU")
        return gpu


def hold_leases(folder: str, barrier: Any, counts: Any) -> None:
    """Try to hold a GPU's lease a few times; count the holders, and the most at one time.

    The count of those that hold it now is kept in a file that is only ever appended to.
    """
    control = FakeLimits.of(FakeGpu("GPU-1"))
    inside = Path(folder).with_name("inside")
    barrier.wait()
    for _ in range(20):
        try:
            with leased(control, ["GPU-1"], "run", LeaseBook(Path(folder))):
                with inside.open("a") as file:
                    file.write("+")
                time.sleep(0.005)
                text = inside.read_text()
                with counts.get_lock():
                    counts[0] += 1
                    counts[1] = max(counts[1], text.count("+") - text.count("-"))
                with inside.open("a") as file:
                    file.write("-")
        except PreflightError:
            time.sleep(0.002)
