"""The only place that calls NVML (nvidia-ml-py): units and errors are converted here.

Used inside the process of `tuner.devices.nvidia.agent` alone, because any of these calls may never
return. mW and mJ do not leave this module.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import pynvml

from tuner.devices.device_state import DeviceState
from tuner.devices.nvidia.faults import NvmlFault

Answer = TypeVar("Answer")

FAULTS: Mapping[int, NvmlFault] = MappingProxyType(
    {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: NvmlFault.ABSENT,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: NvmlFault.ABSENT,
        pynvml.NVML_ERROR_NO_PERMISSION: NvmlFault.DENIED,
        pynvml.NVML_ERROR_NOT_SUPPORTED: NvmlFault.UNSUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: NvmlFault.UNSUPPORTED,
        pynvml.NVML_ERROR_NO_DATA: NvmlFault.UNSUPPORTED,
        pynvml.NVML_ERROR_DEPRECATED: NvmlFault.UNSUPPORTED,
        pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH: NvmlFault.UNSUPPORTED,
        pynvml.NVML_ERROR_VGPU_ECC_NOT_SUPPORTED: NvmlFault.UNSUPPORTED,
        pynvml.NVML_ERROR_RESET_TYPE_NOT_SUPPORTED: NvmlFault.UNSUPPORTED,
        pynvml.NVML_ERROR_INVALID_ARGUMENT: NvmlFault.REFUSED,
        pynvml.NVML_ERROR_NOT_FOUND: NvmlFault.REFUSED,
        pynvml.NVML_ERROR_FREQ_NOT_SUPPORTED: NvmlFault.REFUSED,
        pynvml.NVML_ERROR_UNINITIALIZED: NvmlFault.BROKEN,
        pynvml.NVML_ERROR_ALREADY_INITIALIZED: NvmlFault.BROKEN,
        pynvml.NVML_ERROR_INSUFFICIENT_SIZE: NvmlFault.BROKEN,
        pynvml.NVML_ERROR_INSUFFICIENT_POWER: NvmlFault.BROKEN,
        pynvml.NVML_ERROR_TIMEOUT: NvmlFault.PASSING,
        pynvml.NVML_ERROR_IRQ_ISSUE: NvmlFault.PASSING,
        pynvml.NVML_ERROR_CORRUPTED_INFOROM: NvmlFault.BROKEN,
        pynvml.NVML_ERROR_GPU_IS_LOST: NvmlFault.BROKEN,
        pynvml.NVML_ERROR_RESET_REQUIRED: NvmlFault.BROKEN,
        pynvml.NVML_ERROR_OPERATING_SYSTEM: NvmlFault.PASSING,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: NvmlFault.BROKEN,
        pynvml.NVML_ERROR_IN_USE: NvmlFault.PASSING,
        pynvml.NVML_ERROR_MEMORY: NvmlFault.PASSING,
        pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES: NvmlFault.PASSING,
        pynvml.NVML_ERROR_NOT_READY: NvmlFault.PASSING,
        pynvml.NVML_ERROR_GPU_NOT_FOUND: NvmlFault.BROKEN,
        pynvml.NVML_ERROR_INVALID_STATE: NvmlFault.PASSING,
        pynvml.NVML_ERROR_UNKNOWN: NvmlFault.PASSING,
    }
)
MOST_PIDS = 2**22  # Linux's PID_MAX_LIMIT
_POLLS = 20  # reading a limit back: the driver may need a moment
_POLL_S = 0.05
_TOLERANCE_W = 0.5


class NvmlFaultError(Exception):
    """NVML did not do what was asked; `fault` says which kind of reason it gave."""

    def __init__(self, fault: NvmlFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def ask(what: str, function: Callable[..., Answer], *arguments: Any) -> Answer:
    """Call an NVML function; raise `NvmlFaultError` naming `what` if it fails.

    nvidia-ml-py raises more than its own errors: `NVMLLibraryMismatchError`, which is none, with a
    driver older than itself, and whatever Python makes of an answer that it cannot read.
    """
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        # a code newer than this table is nothing that we know to be harmless, or to last
        fault = FAULTS.get(error.value, NvmlFault.PASSING)
        raise NvmlFaultError(fault, f"{what}: NVML says '{_said(error)}'") from error
    except UnicodeDecodeError:
        raise
    except Exception as error:
        message = f"{what}: nvidia-ml-py cannot tell ({type(error).__name__}: {error})"
        raise NvmlFaultError(NvmlFault.UNSUPPORTED, message) from error


def ask_text(what: str, function: Callable[..., str | bytes], *arguments: Any) -> str:
    """Like `ask`, for a name; bytes that are no text are shown as such."""
    try:
        text = ask(what, function, *arguments)
    except UnicodeDecodeError as error:  # WSL's driver gives names that are not UTF-8
        text = error.object
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def ask_maybe(what: str, function: Callable[..., Answer], *arguments: Any) -> Answer | None:
    """Like `ask`; None where this GPU or driver does not know the answer, or may not tell it."""
    try:
        return ask(what, function, *arguments)
    except NvmlFaultError as error:
        if error.fault in (NvmlFault.UNSUPPORTED, NvmlFault.DENIED):
            return None
        raise


def open_library() -> str:
    """Initialise NVML; return the driver's version."""
    ask("NVML cannot be started", pynvml.nvmlInit)
    return ask_text("the driver's version", pynvml.nvmlSystemGetDriverVersion)


class NvmlDevice:
    """One GPU, known by UUID. `index` is its place in NVML's order."""

    def __init__(self, handle: object, index: int) -> None:
        self._handle = handle
        self.index = index
        self.uuid = ask_text(f"UUID of GPU {index}", pynvml.nvmlDeviceGetUUID, handle)
        self.name = ask_text(f"name of {self.uuid}", pynvml.nvmlDeviceGetName, handle)
        self._has_instant = self._instant_power_w() is not None

    def ask(self, what: str, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """Call an NVML function of this GPU, as the module's `ask` does."""
        return ask(f"{what} of {self.uuid}", function, self._handle, *arguments)

    def ask_maybe(
        self, what: str, function: Callable[..., Answer], *arguments: Any
    ) -> Answer | None:
        """Call an NVML function of this GPU, as the module's `ask_maybe` does."""
        return ask_maybe(f"{what} of {self.uuid}", function, self._handle, *arguments)

    def mig_enabled(self) -> bool | None:
        """Say whether the GPU is split; None where that is not known."""
        modes = self.ask_maybe("MIG mode", pynvml.nvmlDeviceGetMigMode)
        return None if modes is None else bool(modes[0])

    def persistence_mode(self) -> bool | None:
        """Say whether the driver stays loaded while nobody uses the GPU; None if not known."""
        mode = self.ask_maybe("persistence mode", pynvml.nvmlDeviceGetPersistenceMode)
        return None if mode is None else bool(mode)

    def energy_j(self) -> float | None:
        """Return the energy counter, which runs since the driver was loaded."""
        return _milli(self.ask_maybe("energy", pynvml.nvmlDeviceGetTotalEnergyConsumption))

    def _average_power_w(self) -> float | None:
        return _milli(self.ask_maybe("power", pynvml.nvmlDeviceGetPowerUsage))

    def _instant_power_w(self) -> float | None:
        fields = [pynvml.NVML_FI_DEV_POWER_INSTANT]
        values = self.ask_maybe("instant power", pynvml.nvmlDeviceGetFieldValues, fields)
        if values is None:
            return None
        code = values[0].nvmlReturn
        if FAULTS.get(code) in (NvmlFault.PASSING, NvmlFault.BROKEN):
            ask(f"instant power of {self.uuid}", _raise, code)
        if code != pynvml.NVML_SUCCESS:
            return None
        return int(values[0].value.uiVal) / 1e3

    def power_w(self) -> float | None:
        """Return the power at this instant, or an average where the GPU gives only that."""
        return self._instant_power_w() if self._has_instant else self._average_power_w()

    def sample(self) -> tuple[float | None, ...]:
        """Return energy (J), power (W), SM clock (MHz), temperature (C), clock event bits."""
        return (
            self.energy_j(),
            self.power_w(),
            self._clock_mhz(pynvml.NVML_CLOCK_SM),
            self._temperature_c(),
            self._event_reasons(),
        )

    def _clock_mhz(self, kind: int) -> int | None:
        return self.ask_maybe("clock", pynvml.nvmlDeviceGetClockInfo, kind)

    def _temperature_c(self) -> int | None:
        return self.ask_maybe(
            "temperature", pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU
        )

    def _event_reasons(self) -> int | None:
        return self.ask_maybe("clock events", pynvml.nvmlDeviceGetCurrentClocksEventReasons)

    def memory_used_bytes(self) -> int:
        """Return how much of the device's memory is taken."""
        return int(self.ask("memory", pynvml.nvmlDeviceGetMemoryInfo).used)

    def _pids(self) -> tuple[int, ...] | None:
        compute = self.ask_maybe("processes", pynvml.nvmlDeviceGetComputeRunningProcesses)
        if compute is None:
            return None
        graphics = self.ask_maybe("processes", pynvml.nvmlDeviceGetGraphicsRunningProcesses)
        pids = sorted({int(p.pid) for p in [*compute, *(graphics or [])]})
        # some drivers, in some containers, give 0 or 2**32 - 1 for processes that they cannot name
        return tuple(pids) if all(0 < pid <= MOST_PIDS for pid in pids) else None

    def _limits_w(self) -> dict[str, float | None]:
        found = self.ask_maybe("limits", pynvml.nvmlDeviceGetPowerManagementLimitConstraints)
        low, high = found if found is not None else (None, None)
        default = self.ask_maybe(
            "default power limit", pynvml.nvmlDeviceGetPowerManagementDefaultLimit
        )
        return {
            "power_limit_w": self._limit_w(),
            "default_power_limit_w": _milli(default),
            "min_power_limit_w": _milli(low),
            "max_power_limit_w": _milli(high),
            "enforced_power_limit_w": self._enforced_w(),
        }

    def _limit_w(self) -> float | None:
        return _milli(self.ask_maybe("power limit", pynvml.nvmlDeviceGetPowerManagementLimit))

    def _enforced_w(self) -> float | None:
        return _milli(self.ask_maybe("enforced limit", pynvml.nvmlDeviceGetEnforcedPowerLimit))

    def state(self) -> DeviceState:
        """Read everything."""
        load = self.ask_maybe("utilisation", pynvml.nvmlDeviceGetUtilizationRates)
        memory = self.ask_maybe("memory", pynvml.nvmlDeviceGetMemoryInfo)
        sm = pynvml.NVML_CLOCK_SM
        return DeviceState(
            uuid=self.uuid,
            name=self.name,
            time_s=time.monotonic(),
            energy_j=self.energy_j(),
            power_w=self._instant_power_w(),
            power_1s_average_w=self._average_power_w(),
            sm_clock_mhz=self._clock_mhz(sm),
            max_sm_clock_mhz=self.ask_maybe("clock", pynvml.nvmlDeviceGetMaxClockInfo, sm),
            temperature_c=self._temperature_c(),
            gpu_utilisation=None if load is None else load.gpu / 100,
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            event_reasons=self._event_reasons(),
            **self._limits_w(),
            pids=self._pids(),
            mig_enabled=self.mig_enabled(),
        )

    def set_power_limit(self, watts: float) -> None:
        """Set the limit; `await_power_limit` reads it back."""
        limits = self._limits_w()
        low, high = limits["min_power_limit_w"], limits["max_power_limit_w"]
        if low is None or high is None:
            raise NvmlFaultError(NvmlFault.UNSUPPORTED, f"{self.name} has no power limit to set")
        if not low <= watts <= high:
            raise NvmlFaultError(
                NvmlFault.REFUSED,
                f"power_limit_w={watts:g} is out of range for {self.name}: {low:g} to {high:g} W",
            )
        what = f"power limit {watts:g} W"
        self.ask(what, pynvml.nvmlDeviceSetPowerManagementLimit, round(watts * 1e3))

    def await_power_limit(self, watts: float) -> None:
        """Wait until the limit reads back; zeusd may have set it."""
        for _ in range(_POLLS):
            found, enforced = self._limit_w(), self._enforced_w()
            # another cap of the machine may hold the GPU below the limit, never above it
            if _near(found, watts) and (enforced is None or enforced <= watts + _TOLERANCE_W):
                return
            time.sleep(_POLL_S)
        raise NvmlFaultError(
            NvmlFault.BROKEN,
            f"the power limit of {self.uuid} was set to {watts:g} W but reads {_watts(found)} "
            f"(enforced: {_watts(enforced)}); does something else on this machine set it?",
        )

    def nearest_sm_clock(self, mhz: int) -> int:
        """Return the nearest clock that can be locked."""
        memory = self.ask_maybe("memory clocks", pynvml.nvmlDeviceGetSupportedMemoryClocks) or [0]
        function = pynvml.nvmlDeviceGetSupportedGraphicsClocks
        clocks = self.ask_maybe("SM clocks", function, max(memory))
        if not clocks:
            raise NvmlFaultError(NvmlFault.UNSUPPORTED, f"{self.name} has no SM clocks to lock")
        if not min(clocks) <= mhz <= max(clocks):
            raise NvmlFaultError(
                NvmlFault.REFUSED,
                f"sm_clock_mhz={mhz} is out of range for {self.name}: "
                f"{min(clocks)} to {max(clocks)} MHz",
            )
        return int(min(clocks, key=lambda clock: abs(clock - mhz)))

    def lock_sm_clock(self, mhz: int) -> None:
        """Lock the SM clock; NVML has nothing to read it back with."""
        self.ask(f"SM clock {mhz} MHz", pynvml.nvmlDeviceSetGpuLockedClocks, mhz, mhz)

    def unlock_sm_clock(self) -> None:
        """Let the driver choose the SM clock again."""
        self.ask("unlocking the SM clock", pynvml.nvmlDeviceResetGpuLockedClocks)


def open_devices() -> tuple[NvmlDevice, ...]:
    """Return every GPU in NVML's order, which is that of their PCI addresses."""
    return tuple(device_at(index) for index in range(count_devices()))


def count_devices() -> int:
    """Return how many GPUs there are, without a word to any of them."""
    return int(ask("the number of GPUs", pynvml.nvmlDeviceGetCount))


def device_at(index: int) -> NvmlDevice:
    """Return the GPU at a place of NVML's order; asks nothing of the others."""
    handle = ask(f"GPU {index}", pynvml.nvmlDeviceGetHandleByIndex, index)
    return NvmlDevice(handle, index)


def open_device(uuid: str) -> tuple[NvmlDevice, ...]:
    """Return that GPU, or nothing if it is not here; asks nothing of the others."""
    try:
        handle = ask(f"GPU {uuid}", pynvml.nvmlDeviceGetHandleByUUID, uuid)
    except NvmlFaultError as error:
        if error.fault is NvmlFault.REFUSED:
            return ()
        raise
    return (NvmlDevice(handle, int(ask(f"GPU {uuid}", pynvml.nvmlDeviceGetIndex, handle))),)


def _said(error: pynvml.NVMLError) -> str:
    """Return NVML's own words; for a code without any the library may fail once more."""
    try:
        return str(error)
    except (pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, ValueError, AttributeError):
        return f"error {error.value}"


def _raise(code: int) -> None:
    raise pynvml.NVMLError(code)


def _milli(value: int | None) -> float | None:
    return None if value is None else value / 1e3


def _near(found_w: float | None, wanted_w: float) -> bool:
    return found_w is not None and abs(found_w - wanted_w) <= _TOLERANCE_W


def _watts(value_w: float | None) -> str:
    return "unknown" if value_w is None else f"{value_w:g} W"
