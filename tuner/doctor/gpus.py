"""GPU checks: driver, energy counter, limits, other users. Read-only, with deadlines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuner.devices.device_state import DeviceState, ListedDevice
from tuner.devices.open import (
    DEADLINE_S,
    devices_for_servers,
    inspect_device,
    isolated_limits,
    list_devices,
)
from tuner.doctor.host import Host
from tuner.errors import OperatorNeededError, PreflightError, TunerError
from tuner.host.finding import Finding, ok, problem, warning
from tuner.servers.processes import tagged_processes

_CAP_SYS_ADMIN = 1 << 21  # NVML's setters require it, also of root in a container
_UNSEEN_BYTES = 512 * 2**20  # a driver keeps some for itself
_LOOK = "nvidia-smi; sudo dmesg | grep -i xid"


def check_gpus(
    host: Host, environment: Mapping[str, str], *, deadline_s: float = DEADLINE_S
) -> list[Finding]:
    """Check driver and GPUs; a GPU that hangs is a problem after `deadline_s`."""
    try:
        listed = list_devices(deadline_s=deadline_s)
    except OperatorNeededError as error:
        return _some_hang(error, deadline_s)
    if listed is None:
        return [_no_gpu(host)]
    driver = ok("driver", f"{listed.driver}, {len(listed.devices)} GPUs")
    try:
        devices = devices_for_servers(listed.devices, environment)
    except PreflightError as error:
        return [driver, problem("gpu", str(error))]
    if not devices:
        return [driver, _hidden(environment)]
    found = [driver, judge_permission(host, environment)]
    for device in devices:
        found += _check_one(device, deadline_s)
    return found


def _some_hang(error: OperatorNeededError, deadline_s: float) -> list[Finding]:
    """Find the GPU that does not answer."""
    try:
        gpus = isolated_limits(deadline_s=deadline_s)
    except OperatorNeededError:  # the driver itself does not
        gpus = None
    if gpus is None:
        return [problem("gpu", _first_part(error), _LOOK)]
    return check_apart(gpus.uuids(), deadline_s)


def check_apart(uuids: Sequence[str], deadline_s: float) -> list[Finding]:
    """Check GPUs in NVML's order; those without a UUID did not answer before."""
    found: list[Finding] = []
    for index, uuid in enumerate(uuids):
        if uuid.startswith("GPU-"):
            found += _check_one(ListedDevice(index, uuid, uuid, None), deadline_s)
        else:
            found.append(problem(f"gpu {index}", f"{uuid} does not answer NVML", _LOOK))
    return found


def _no_gpu(host: Host) -> Finding:
    loaded = host.text("/proc/driver/nvidia/version")
    if loaded is not None:
        return problem(
            "gpu",
            "the NVIDIA driver is loaded, but NVML finds no GPU here",
            "nvidia-smi  # in a container: start it with --gpus all",
        )
    return warning(
        "gpu",
        "no NVIDIA GPU is seen here: energy would be that of an emulated GPU, and labelled so",
        "nvidia-smi  # in a container: start it with --gpus all",
    )


def _hidden(environment: Mapping[str, str]) -> Finding:
    return warning(
        "gpu",
        f"CUDA_VISIBLE_DEVICES='{environment.get('CUDA_VISIBLE_DEVICES', '')}' hides every GPU: "
        "energy would be emulated",
        "unset CUDA_VISIBLE_DEVICES",
    )


def judge_permission(host: Host, environment: Mapping[str, str]) -> Finding:
    """Say whether limits can be changed, without trying it."""
    if environment.get("ZEUSD_SOCK_PATH"):
        return ok("gpu permission", "limits are changed through Zeus's daemon (ZEUSD_SOCK_PATH)")
    capabilities = host.capabilities()
    if capabilities is None:
        return warning("gpu permission", "whether this user may change limits is not known here")
    if capabilities & _CAP_SYS_ADMIN:
        return ok("gpu permission", "this user may change limits (with --allow-gpu-settings)")
    return warning(
        "gpu permission",
        "this user may not change power limits and clocks, so those knobs cannot be searched",
        "sudo tuner run --allow-gpu-settings ...  # in a container: start it with "
        "--cap-add SYS_ADMIN",
    )


def _check_one(device: ListedDevice, deadline_s: float) -> list[Finding]:
    """Check one GPU over its own channel, so that a hung GPU does not hide the others."""
    try:
        inspection = inspect_device(device.uuid, deadline_s=deadline_s)
    except TunerError as error:
        return [problem(_name(device), _first_part(error), _LOOK)]
    if inspection is None:
        return [problem(_name(device), f"GPU {device.uuid} is gone from NVML", _LOOK)]
    found = judge_gpu(device.index, inspection.state, inspection.persistence_mode)
    return [*found, _profiles(_name(device), inspection.power_profiles)]


def judge_gpu(index: int, state: DeviceState, persistent: bool | None) -> list[Finding]:
    """Return the findings on one GPU."""
    name = f"gpu {index}"
    if state.energy_j is None or (state.power_w is None and state.power_1s_average_w is None):
        return [
            problem(
                name,
                f"{state.name} has no energy counter; a Volta or newer GPU that is not split by "
                "MIG is needed",
                f"nvidia-smi -i {index} -mig 0",
            )
        ]
    found = [ok(name, f"{state.name} ({state.uuid}) has an energy counter"), *_limits(name, state)]
    if persistent is False:
        found.append(
            warning(
                f"{name} persistence",
                "persistence mode is off: the driver unloads and forgets limits while nobody "
                "uses the GPU",
                f"sudo nvidia-smi -i {index} -pm 1",
            )
        )
    return [*found, _others(name, state)]


def _limits(name: str, state: DeviceState) -> list[Finding]:
    check = f"{name} limits"
    low_w, high_w = state.min_power_limit_w, state.max_power_limit_w
    now_w, default_w = state.power_limit_w, state.default_power_limit_w
    if low_w is None or high_w is None or now_w is None or default_w is None:
        return [warning(check, f"{state.name} does not tell its power limits: no knob of a study")]
    span = f"{low_w:g} to {high_w:g} W"
    if now_w != default_w:
        return [
            warning(
                check,
                f"the power limit is {now_w:g} W, not the default of {default_w:g} W ({span}): "
                "somebody has set it",
                f"sudo nvidia-smi -i {state.uuid} -pl {default_w:g}  # after a crash: tuner gpu "
                "restore",
            )
        ]
    return [ok(check, f"power limit {now_w:g} W, the default; {span}")]


def _profiles(name: str, profiles: Sequence[str]) -> Finding:
    if not profiles:
        return ok(f"{name} profiles", "no workload power profiles (Blackwell and newer have some)")
    return ok(f"{name} profiles", f"workload power profiles: {', '.join(profiles)}")


def _others(name: str, state: DeviceState) -> Finding:
    check = f"{name} use"
    used = state.memory_used_bytes
    held = "" if used is None else f", {used / 2**30:.1f} GiB in use"
    if state.pids is None:
        return warning(check, f"the GPU does not say who uses it{held}")
    if state.pids:
        return problem(
            check,
            f"in use by {_named(state.pids)}{held}: no energy of a window could be believed",
            f"nvidia-smi -i {state.uuid}  # then end them, or choose another GPU with "
            "CUDA_VISIBLE_DEVICES",
        )
    if used is not None and used > _UNSEEN_BYTES + _reserved_bytes(state):
        return warning(
            check,
            f"no process is seen on it, but memory is taken{held}",
            f"nvidia-smi -i {state.uuid}",
        )
    return ok(check, "nobody else uses it")


def _reserved_bytes(state: DeviceState) -> int:
    """Return the memory that a driver may reserve, bytes: a hundredth of the whole."""
    return 0 if state.memory_total_bytes is None else state.memory_total_bytes // 100


def _named(pids: Sequence[int]) -> str:
    ours = {process.pid: process.run_tag for process in tagged_processes()}
    return ", ".join(
        f"pid {pid} ({f'run {ours[pid]}' if pid in ours else _process_name(pid)})" for pid in pids
    )


def _process_name(pid: int) -> str:
    return Host().text(f"/proc/{pid}/comm") or "not seen from here"


def _name(device: ListedDevice) -> str:
    return f"gpu {device.index}"


def _first_part(error: TunerError) -> str:
    """Return the sentence without its advice, which is shown separately."""
    return str(error).partition("; look at")[0]
