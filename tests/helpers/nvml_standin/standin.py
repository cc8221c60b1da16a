"""A software NVML for tests: devices in a shared file, steered from here, read by real clients.

`libnvidia-ml.c` beside this file answers the NVML calls; the real nvidia-ml-py finds it through
`LD_LIBRARY_PATH` in any process that is started with `environment()`:

    standin = Standin.create(tmp_path / "nvml.state", n_devices=2)
    standin.device(0).set(low_w=300, high_w=300, temperature_c=60)     # takes effect at once
    standin.device(0).square(100, 500, period_s=2)                     # a power profile
    standin.device(0).fail("nvmlDeviceSetPowerManagementLimit", NO_PERMISSION)
    standin.device(1).hang("nvmlDeviceGetFieldValues")                 # until `mend`
    standin.device(0).emulate(create_devices(path, gpu, 1))            # a GPU of the emulator's
    subprocess.run([...], env={**os.environ, **standin.environment()})
    assert standin.device(0).limit_w == 700 and standin.device(0).locked_mhz is None

The state outlives every process that uses it, as a driver's does. Another process may open the
same file with `Standin.open(path)`. Names of functions are NVML's without a `_v2` suffix; without
an index they apply to the library as a whole (`standin.fail("nvmlInit", ...)`). Injected into a
device's getter, an error or hang also holds for the setters' own reading back.
"""

from __future__ import annotations

import ctypes as c
import functools
import hashlib
import mmap
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tuner.emulator.device_file import DeviceFile

SOURCE = Path(__file__).with_name("libnvidia-ml.c")
MAX_DEVICES, MAX_PROCESSES, MAX_FUNCTIONS, SEGMENTS = 16, 16, 48, 64

NOT_SUPPORTED, NO_PERMISSION, TIMEOUT, GPU_IS_LOST = 3, 4, 10, 15
SW_POWER_CAP, HW_SLOWDOWN, SW_THERMAL, HW_THERMAL = 0x4, 0x8, 0x20, 0x40
DRIVER_NOT_LOADED, UNKNOWN = 9, 999


def _fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Segment(c.Structure):
    _fields_ = _fields(c.c_double, "start_s energy_j low_w high_w period_s duty origin_s")


class _Injection(c.Structure):
    _fields_ = [
        *_fields(c.c_int32, "error hang"),
        ("delay_s", c.c_double),
        ("calls", c.c_int64),
    ]


class _Device(c.Structure):
    _fields_ = [
        *_fields(c.c_char * 96, "uuid name"),
        *_fields(c.c_double, "low_w high_w period_s duty origin_s idle_w"),
        *_fields(c.c_int32, "follows_limit follows_clock"),
        *_fields(c.c_double, "counter_period_s counter_gain counter_offset_j average_s"),
        *_fields(c.c_double, "counter_read_s"),
        *_fields(c.c_uint32, "min_mw max_mw default_mw limit_mw enforced_mw revert_to_mw"),
        *_fields(c.c_double, "revert_after_s limit_set_s"),
        *_fields(c.c_uint32, "min_sm_mhz max_sm_mhz step_sm_mhz"),
        *_fields(c.c_uint32, "lock_min_mhz lock_max_mhz idle_sm_mhz"),
        *_fields(c.c_uint32, "memory_mhz temperature_c gpu_percent memory_percent mig_mode"),
        ("process_count", c.c_uint32),
        *_fields(c.c_uint64, "memory_total_bytes memory_used_bytes event_reasons"),
        ("pids", c.c_uint32 * MAX_PROCESSES),
        ("process_bytes", c.c_uint64 * MAX_PROCESSES),
        *_fields(c.c_uint32, "segment_count persistence_mode"),
        ("segments", _Segment * SEGMENTS),
        ("injections", _Injection * MAX_FUNCTIONS),
        ("emulated_path", c.c_char * 240),
        ("emulated_index", c.c_uint64),
        *_fields(c.c_uint32, "profiles_mask requested_mask blocked_mask profiles_pad"),
    ]


class _State(c.Structure):
    _fields_ = [
        *_fields(c.c_uint32, "device_count pad"),
        ("driver_version", c.c_char * 80),
        ("injections", _Injection * MAX_FUNCTIONS),
        ("devices", _Device * MAX_DEVICES),
    ]


H100 = {
    "name": b"NVIDIA H100 80GB HBM3",
    "low_w": 300.0,
    "high_w": 300.0,
    "period_s": 1.0,
    "duty": 0.5,
    "idle_w": 70.0,
    "counter_gain": 1.0,
    "average_s": 1.0,
    "min_mw": 200_000,
    "max_mw": 700_000,
    "default_mw": 700_000,
    "limit_mw": 700_000,
    "min_sm_mhz": 210,
    "max_sm_mhz": 1980,
    "step_sm_mhz": 15,
    "memory_mhz": 2619,
    "temperature_c": 45,
    "memory_total_bytes": 80 * 2**30,
    "persistence_mode": 1,
}


@functools.cache
def library_folder() -> Path:
    """Build `libnvidia-ml.so.1` once per version of its source; return the folder it is in."""
    key = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"nvml-standin-{os.getuid()}-{key}"
    library = folder / "libnvidia-ml.so.1"
    if not library.exists():
        if shutil.which("cc") is None:
            pytest.skip("the stand-in for NVML is built with a C compiler: install gcc")
        folder.mkdir(mode=0o700, exist_ok=True)
        fresh = folder / f"building-{os.getpid()}"
        command = ["cc", "-shared", "-fPIC", "-O2", "-Wl,-soname,libnvidia-ml.so.1"]
        subprocess.run([*command, str(SOURCE), "-o", str(fresh), "-lm", "-lpthread"], check=True)
        fresh.rename(library)  # whole or not at all: several test runs may build at once
    return folder


@functools.cache
def library() -> c.CDLL:
    """The stand-in, loaded here: from now on this process cannot load a real NVML either."""
    loaded = c.CDLL(str(library_folder() / "libnvidia-ml.so.1"))
    loaded.standin_energy_j.restype = c.c_double
    loaded.standin_energy_j.argtypes = [c.c_int, c.c_double]
    for part in ("state", "device", "emulated"):
        getattr(loaded, f"standin_{part}_size").restype = c.c_size_t
    return loaded


class Standin:
    """The devices of one state file. One at a time per process, since the library maps one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            self._state = _State.from_buffer(mmap.mmap(file.fileno(), 0))
        assert library().standin_state_size() == c.sizeof(_State)
        assert library().standin_open(os.fsencode(path)) == 0

    @classmethod
    def create(cls, path: Path, n_devices: int = 1) -> Standin:
        """Create the file with that many idle-looking H100s of 300 W constant power."""
        path.write_bytes(bytes(c.sizeof(_State)))
        standin = cls(path)
        standin._state.device_count = n_devices
        standin._state.driver_version = b"575.57.08"
        machine = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:12]
        for i in range(n_devices):
            uuid = f"GPU-{i:08x}-1111-2222-3333-{machine}"
            standin.device(i).set(**H100, uuid=uuid.encode(), origin_s=time.monotonic())
        return standin

    @classmethod
    def open(cls, path: Path) -> Standin:
        """Open a file that another process created."""
        return cls(path)

    def environment(self) -> dict[str, str]:
        """Return the variables with which a process finds this stand-in instead of NVML."""
        return {
            "LD_LIBRARY_PATH": str(library_folder()),
            "NVML_STANDIN_STATE": str(self.path),
        }

    def device(self, index: int) -> StandinDevice:
        """Return the handle that steers one device."""
        return StandinDevice(self._state.devices[index], index)

    def set_count(self, n_devices: int) -> None:
        """Let fewer devices (0: none) be found."""
        self._state.device_count = n_devices

    def fail(self, function: str, error: int) -> None:
        """Let a function fail on every device, or the library's own (nvmlInit)."""
        _injection(self._state, function).error = error

    def hang(self, function: str) -> None:
        """Let a function not return, until `mend`."""
        _injection(self._state, function).hang = 1

    def mend(self) -> None:
        """End every failure, hang and delay of the library as a whole."""
        _mend(self._state)


class StandinDevice:
    """One device: `set` writes any field of the layout, the rest are shorthands."""

    def __init__(self, fields: _Device, index: int) -> None:
        self._fields = fields
        self._index = index

    def set(self, **values: Any) -> None:
        """Change fields; power and energy follow from this instant on."""
        with _locked():
            for name, value in values.items():
                if name not in dict(_Device._fields_):
                    raise AttributeError(name)
                setattr(self._fields, name, value)
            library().standin_changed(self._index)

    def get(self, name: str) -> Any:
        """Return a field of the layout."""
        return getattr(self._fields, name)

    def emulate(self, file: DeviceFile, index: int = 0) -> None:
        """Be a GPU of the emulator's: an emulated server's power, limits that this one obeys."""
        emulated = file.devices[index]
        assert library().standin_emulated_size() == len(emulated)
        facts = emulated.facts
        self.set(
            emulated_path=os.fsencode(file.path.absolute()),
            emulated_index=index,
            counter_period_s=0.02,  # a real counter's is 20 to 100 ms
            uuid=emulated.uuid.encode(),
            name=facts.name.encode(),
            min_mw=round(facts.min_limit_w * 1e3),
            max_mw=round(facts.max_limit_w * 1e3),
            default_mw=round(facts.default_limit_w * 1e3),
            limit_mw=round(emulated.settings.power_limit_w * 1e3),
            min_sm_mhz=facts.min_clock_mhz,
            max_sm_mhz=facts.max_clock_mhz,
            step_sm_mhz=facts.clock_step_mhz,
            memory_total_bytes=facts.memory_bytes,
        )

    def constant(self, watts: float) -> None:
        """Draw constant power."""
        self.set(low_w=watts, high_w=watts)

    def square(self, low_w: float, high_w: float, period_s: float, duty: float = 0.5) -> None:
        """Draw `high_w` for `duty` of each period; a short period makes bursts."""
        self.set(
            low_w=low_w, high_w=high_w, period_s=period_s, duty=duty, origin_s=time.monotonic()
        )

    def processes(self, bytes_by_pid: dict[int, int]) -> None:
        """Let these processes be on the device."""
        for i, (pid, used) in enumerate(bytes_by_pid.items()):
            self._fields.pids[i] = pid
            self._fields.process_bytes[i] = used
        self._fields.process_count = len(bytes_by_pid)

    def reset_counter(self) -> None:
        """Let the energy counter start again at 0, as a driver reload does."""
        self.set(counter_offset_j=-self.energy_j(time.monotonic()) * self._fields.counter_gain)

    def energy_j(self, time_s: float) -> float:
        """Return the true energy up to an instant of `time.monotonic()`."""
        return float(library().standin_energy_j(self._index, time_s))

    def fail(self, function: str, error: int) -> None:
        """Let a function fail on this device."""
        _injection(self._fields, function).error = error

    def hang(self, function: str) -> None:
        """Let a function not return on this device, until `mend`."""
        _injection(self._fields, function).hang = 1

    def delay(self, function: str, seconds: float) -> None:
        """Let a function take that long on this device."""
        _injection(self._fields, function).delay_s = seconds

    def mend(self) -> None:
        """End every failure, hang and delay of this device."""
        _mend(self._fields)

    def deny_setting(self) -> None:
        """Answer NO_PERMISSION to everything that needs root."""
        for function in (
            "nvmlDeviceSetPowerManagementLimit",
            "nvmlDeviceSetGpuLockedClocks",
            "nvmlDeviceResetGpuLockedClocks",
        ):
            self.fail(function, NO_PERMISSION)

    def calls(self, function: str) -> int:
        """Return how often a function was called on this device."""
        return int(_injection(self._fields, function).calls)

    @property
    def uuid(self) -> str:
        """The device's UUID."""
        return bytes(self._fields.uuid).decode()

    @property
    def limit_w(self) -> float:
        """The power limit that is set now."""
        return self._fields.limit_mw / 1e3

    @property
    def locked_mhz(self) -> int | None:
        """The SM clock that is locked now, or None."""
        return int(self._fields.lock_max_mhz) or None


def _injection(part: _State | _Device, function: str) -> _Injection:
    index = library().standin_function_index(function.encode())
    if index < 0:
        raise ValueError(f"the stand-in has no function {function}")
    return part.injections[index]


def _mend(part: _State | _Device) -> None:
    for injection in part.injections:
        injection.error = injection.hang = 0
        injection.delay_s = 0.0


@contextmanager
def _locked() -> Any:
    library().standin_lock()
    try:
        yield
    finally:
        library().standin_unlock()
