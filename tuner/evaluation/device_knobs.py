"""Device knobs: power limit and SM clock of real GPUs, changed only under a lease."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

from tuner.configuration import Configuration, Value
from tuner.devices.device_state import DeviceState
from tuner.devices.leases.lease_book import LeaseBook, LeasedLimits, leased
from tuner.devices.limit_control import Access, PermissionDeniedError
from tuner.devices.open import open_limits
from tuner.errors import OperatorNeededError, PreflightError, UsageError
from tuner.host.state_folder import state_folder

_PROFILE = "power_profile"


class DeviceControl(Protocol):
    """Sets the power limit and SM clock of a server's GPUs, real or emulated."""

    def open(self, gpus: Sequence[DeviceState]) -> None:
        """Acquire the GPUs and set the default limits."""

    def apply(self, configuration: Configuration) -> float | None:
        """Set the configuration's device knobs; return the power limit in force, W."""

    def close(self) -> None:
        """Restore the settings from before `open`."""


class DeviceKnobs:
    """The limits of the GPUs that a study uses, held under leases from `open` to `close`.

    A configuration without device knobs, such as the baseline, is measured at the GPU's *default*
    limits. `close` restores the limits from before `open`. `close` is safe while another thread is
    still in `open` or `apply`, which a cancelled task can leave behind: it waits for that thread.
    """

    def __init__(self, run_tag: str, extremes: Sequence[Configuration]) -> None:
        self._run_tag = run_tag
        self._extremes = extremes
        self._lock = threading.RLock()
        self._is_closed = False
        self._stack = ExitStack()
        self._limits: LeasedLimits | None = None
        self._default_power_limit_w: float | None = None

    def open(self, gpus: Sequence[DeviceState]) -> None:
        """Take the leases, try both ends of each knob, then set the default limits.

        Raises `PreflightError` if a limit cannot be set or another run has leased the GPUs.
        """
        for gpu in gpus:
            for extreme in self._extremes:
                require_in_range(gpu, extreme.device)
        if len({gpu.default_power_limit_w for gpu in gpus}) > 1:
            raise PreflightError(
                "the GPUs have different default power limits, so one power_limit_w does not fit "
                "them all; choose GPUs of one kind with CUDA_VISIBLE_DEVICES"
            )
        with self._lock:
            if not self._is_closed:
                self._open(gpus)

    def _open(self, gpus: Sequence[DeviceState]) -> None:
        control = open_limits(Access.SET)
        if control is None:
            raise PreflightError("there is no NVML, so power limits and clocks cannot be set")
        self._stack.callback(control.close)
        try:
            book = LeaseBook(state_folder())
            uuids = [gpu.uuid for gpu in gpus]
            self._limits = self._stack.enter_context(leased(control, uuids, self._run_tag, book))
            self._default_power_limit_w = gpus[0].default_power_limit_w
            for extreme in self._extremes:  # fails now, not in the middle of the study
                self._apply(self._limits, extreme)
            self._apply(self._limits, Configuration())
        except BaseException:
            self._give_back()  # and may be opened again: what kept it from that may pass
            raise

    def apply(self, configuration: Configuration) -> float | None:
        """Set the configuration's device knobs; return the power limit in force, W.

        Raises `OperatorNeededError` if a GPU no longer accepts it.
        """
        try:
            with self._lock:
                if self._limits is None:
                    raise RuntimeError("the leases were not taken, or are given back")
                return self._apply(self._limits, configuration)
        except PermissionDeniedError as error:
            raise OperatorNeededError(
                f"the right to set the GPU's limits was lost during the run: {error}"
            ) from error

    def _apply(self, limits: LeasedLimits, configuration: Configuration) -> float | None:
        device = configuration.device
        power_limit_w = device.get("power_limit_w", self._default_power_limit_w)
        sm_clock_mhz = device.get("sm_clock_mhz")
        limit_w = None if power_limit_w is None else float(power_limit_w)
        limits.apply(
            power_limit_w=limit_w,
            sm_clock_mhz=None if sm_clock_mhz is None else int(sm_clock_mhz),
            power_profiles=self._profiles(device),
        )
        return limit_w

    def _profiles(self, device: Mapping[str, Value]) -> tuple[str, ...] | None:
        """Return the profiles to request: none by default, and as found in other studies."""
        if not any(_PROFILE in extreme.device for extreme in self._extremes):
            return None
        return (str(device[_PROFILE]),) if _PROFILE in device else ()

    def close(self) -> None:
        """Restore the settings from before `open`."""
        with self._lock:
            self._is_closed = True
            self._give_back()

    def _give_back(self) -> None:
        self._limits = None
        self._stack.close()


def require_in_range(gpu: DeviceState, device: Mapping[str, Value]) -> None:
    """Raise `UsageError` for a limit or clock that the GPU does not have."""
    watts, mhz = device.get("power_limit_w"), device.get("sm_clock_mhz")
    low_w, high_w, high_mhz = gpu.min_power_limit_w, gpu.max_power_limit_w, gpu.max_sm_clock_mhz
    if (
        watts is not None
        and low_w is not None
        and high_w is not None
        and not low_w <= float(watts) <= high_w
    ):
        raise UsageError(f"power_limit_w={watts}: {gpu.name} takes {low_w:g} to {high_w:g} W")
    if mhz is not None and high_mhz is not None and int(mhz) > high_mhz:
        raise UsageError(f"sm_clock_mhz={mhz}: {gpu.name} has at most {high_mhz} MHz")


def device_defaults(gpus: Sequence[DeviceState]) -> dict[str, Value]:
    """Return each device knob's value when it is not set, as far as NVML reports it."""
    if not gpus:
        return {}
    known = {
        "power_limit_w": gpus[0].default_power_limit_w,
        "sm_clock_mhz": gpus[0].max_sm_clock_mhz,
    }
    return {name: value for name, value in known.items() if value is not None}
