"""Idle GPUs before a launch: no memory and no process of the server before is left on them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from tuner.devices.device_state import DeviceState
from tuner.records import Failure, FailureKind
from tuner.servers.forking.fork_server import IMPORTED
from tuner.servers.launch import LaunchFailedError
from tuner.servers.processes import stop_tagged

DEADLINE_S = 60.0
_POLL_S = 0.5
_SLACK_BYTES = 512 * 2**20
_IDLE_UTILISATION = 0.05  # NVML's own average over up to a second

ReadStates = Callable[[], Sequence[DeviceState]]


async def await_idle(run_tag: str, memory_bytes: Mapping[str, int], states: ReadStates) -> None:
    """Wait until the GPUs are as they were before the first server of the run.

    `memory_bytes` is the memory in use then, by UUID. No server of the run may be up: a process
    with the run's tag is a leftover, unless it is a fork server, and is stopped. Raises
    `LaunchFailedError`, that the machine is busy, if memory is not freed, or if a GPU reports
    utilisation without a process (after a killed kernel some do so until a reset). Raises
    `OperatorNeededError` for a process that cannot be killed.
    """
    await asyncio.to_thread(stop_tagged, run_tag, grace_s=0, spared_tag=IMPORTED)
    end_s = time.monotonic() + DEADLINE_S
    while problem := _problem(await asyncio.to_thread(states), memory_bytes):
        if time.monotonic() >= end_s:
            raise LaunchFailedError(Failure(FailureKind.BUSY, problem))
        await asyncio.sleep(_POLL_S)


def memory_of(states: Sequence[DeviceState]) -> dict[str, int]:
    """Return the memory in use of each GPU that says so."""
    return {s.uuid: s.memory_used_bytes for s in states if s.memory_used_bytes is not None}


def _problem(states: Sequence[DeviceState], before_bytes: Mapping[str, int]) -> str | None:
    for state in states:
        used_bytes, had_bytes = state.memory_used_bytes, before_bytes.get(state.uuid)
        more_bytes = 0 if used_bytes is None or had_bytes is None else used_bytes - had_bytes
        if more_bytes > _SLACK_BYTES:
            pids = ", ".join(map(str, state.pids or ())) or "none that NVML names"
            return (
                f"GPU {state.uuid} still holds {more_bytes / 2**30:.1f} GiB more than before the "
                f"run, {DEADLINE_S:g} s after its server ended (processes: {pids}); see who uses "
                "it with `nvidia-smi`"
            )
        busy_share = state.gpu_utilisation or 0.0
        if busy_share > _IDLE_UTILISATION and state.pids == ():
            return (
                f"GPU {state.uuid} reports {100 * busy_share:.0f} % utilisation though "
                "no process is seen on it: somebody in another container computes, or its "
                "telemetry is stuck; for the latter reset it with `nvidia-smi --gpu-reset`"
            )
    return None
