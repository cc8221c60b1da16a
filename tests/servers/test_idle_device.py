"""What has to be over before the next server starts."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

import pytest

from tuner.devices.device_state import DeviceState
from tuner.records import FailureKind
from tuner.servers import idle_device
from tuner.servers.idle_device import await_idle, memory_of
from tuner.servers.launch import LaunchFailedError
from tuner.servers.processes import tag_environment

_FIELDS = dict.fromkeys(DeviceState.__dataclass_fields__)
IDLE = DeviceState(
    **{**_FIELDS, "uuid": "GPU-1", "memory_used_bytes": 10**9, "gpu_utilisation": 0.0, "pids": ()}
)
FULL = replace(IDLE, memory_used_bytes=30 * 10**9, pids=(4711,))
BUSY = replace(IDLE, gpu_utilisation=1.0)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle_device, "DEADLINE_S", 0.05)
    monkeypatch.setattr(idle_device, "_POLL_S", 0.01)


class Gpu:
    """Says one state after the other, the last one again and again."""

    def __init__(self, *states: DeviceState) -> None:
        self.states = list(states)

    def read(self) -> tuple[DeviceState, ...]:
        return (self.states.pop(0) if len(self.states) > 1 else self.states[0],)


async def test_memory_that_comes_back_is_waited_for(run_tag: str) -> None:
    gpu = Gpu(FULL, FULL, IDLE)
    await await_idle(run_tag, memory_of([IDLE]), gpu.read)
    assert gpu.states == [IDLE]


async def test_memory_that_somebody_keeps_is_the_machines_fault(run_tag: str) -> None:
    with pytest.raises(LaunchFailedError, match=r"GPU-1 still holds 27\.0 GiB more.*4711") as found:
        await await_idle(run_tag, memory_of([IDLE]), Gpu(FULL).read)
    assert found.value.failure.kind is FailureKind.BUSY


async def test_memory_that_was_taken_before_the_run_is_left_to_its_owner(run_tag: str) -> None:
    await await_idle(run_tag, memory_of([FULL]), Gpu(FULL).read)


async def test_utilisation_without_a_process_is_told(run_tag: str) -> None:
    await await_idle(run_tag, {}, Gpu(BUSY, IDLE).read)  # an average of the second before
    with pytest.raises(LaunchFailedError, match=r"100 % utilisation.*--gpu-reset"):
        await await_idle(run_tag, {}, Gpu(BUSY).read)


async def test_what_is_not_known_does_not_matter(run_tag: str) -> None:
    unknown = replace(IDLE, memory_used_bytes=None, gpu_utilisation=None, pids=None)
    assert memory_of([unknown]) == {}
    await await_idle(run_tag, {"GPU-1": 0}, Gpu(unknown).read)


async def test_an_orphan_of_the_run_is_stopped(run_tag: str) -> None:
    orphan = subprocess.Popen(  # noqa: ASYNC220
        ["/bin/sleep", "60"], env={**os.environ, **tag_environment(run_tag, "old")}
    )
    await await_idle(run_tag, {}, Gpu(IDLE).read)
    assert orphan.wait(10) == -9
