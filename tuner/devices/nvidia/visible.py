"""Which GPUs CUDA programs started from here will see, in CUDA's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuner.devices.device_state import ListedDevice
from tuner.errors import PreflightError


def visible_devices(
    devices: Sequence[ListedDevice], environment: Mapping[str, str], gpu_count: int | None = None
) -> tuple[ListedDevice, ...]:
    """Return the first `gpu_count` visible GPUs (all if None); empty where CUDA sees none.

    `CUDA_VISIBLE_DEVICES` lists indices or UUIDs, or unique beginnings of UUIDs; CUDA ignores
    everything from the first entry on that names no GPU. `devices` are in the order of their PCI
    addresses, which is CUDA's only under `CUDA_DEVICE_ORDER=PCI_BUS_ID`: its default puts faster
    models first. Raises `PreflightError` where which GPUs are meant cannot be known.
    """
    listed = environment.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        chosen, by_index = tuple(devices), True
    else:
        chosen, by_index = _listed(devices, [entry.strip() for entry in listed.split(",")])
    taken = chosen if gpu_count is None else chosen[:gpu_count]
    if by_index and len(taken) < len(devices):
        _require_known_order(devices, environment)
    for device in taken:
        if device.mig_enabled:
            raise PreflightError(
                f"{device.name} ({device.uuid}) is split by MIG, and its slices have no energy "
                "counter of their own; use a GPU without MIG, or turn it off (nvidia-smi -mig 0)"
            )
    return taken


def _listed(
    devices: Sequence[ListedDevice], entries: list[str]
) -> tuple[tuple[ListedDevice, ...], bool]:
    """Return the GPUs of the list up to its first invalid entry; whether one is by index."""
    chosen: list[ListedDevice] = []
    by_index = False
    for entry in entries:
        device = _named(devices, entry)
        if device is None:
            if not chosen and entry.upper().startswith("GPU-"):
                raise PreflightError(
                    f"CUDA_VISIBLE_DEVICES names {entry}, which is no GPU of this machine; "
                    f"found: {', '.join(d.uuid for d in devices)}"
                )
            break
        if device in chosen:
            raise PreflightError(
                f"CUDA_VISIBLE_DEVICES names {device.uuid} twice; name each GPU once"
            )
        by_index = by_index or entry.isdecimal()
        chosen.append(device)
    return tuple(chosen), by_index


def _named(devices: Sequence[ListedDevice], entry: str) -> ListedDevice | None:
    if entry.isdecimal():
        index = int(entry)
        return devices[index] if index < len(devices) else None
    if entry.startswith("MIG-"):
        raise PreflightError(
            f"CUDA_VISIBLE_DEVICES names the MIG slice {entry}, which has no energy counter of "
            "its own; name a whole GPU"
        )
    if not entry.startswith("GPU-"):
        return None  # "-1", "none", "NoDevFiles": ways to hide every GPU
    matches = [device for device in devices if device.uuid.startswith(entry)]
    if len(matches) > 1:
        raise PreflightError(
            f"CUDA_VISIBLE_DEVICES names {entry}, with which several GPUs begin: "
            f"{', '.join(d.uuid for d in matches)}; write more of it"
        )
    return matches[0] if matches else None


def _require_known_order(devices: Sequence[ListedDevice], environment: Mapping[str, str]) -> None:
    models = {device.name for device in devices}
    if len(models) > 1 and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        raise PreflightError(
            f"this machine has different GPUs ({', '.join(sorted(models))}), which CUDA numbers "
            "by speed; set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name GPUs by UUID in "
            "CUDA_VISIBLE_DEVICES"
        )
