"""NVML meter: energy and power of real GPUs, read through the NVML process."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Sequence

import numpy as np

from tuner.devices.device_state import DeviceState, ListedDevice
from tuner.devices.energy_window import EnergyWindow, WindowVerdict, judge_window
from tuner.devices.meter import PowerReading, WindowContext
from tuner.devices.nvidia.agent_channel import AgentChannel, open_agent
from tuner.devices.nvidia.ring import COLUMNS
from tuner.devices.nvidia.visible import visible_devices
from tuner.devices.timeline import DeviceTimeline
from tuner.errors import OperatorNeededError, PreflightError
from tuner.records import PowerTimeline, Source

SAMPLE_PERIOD_S = 0.1


class NvmlMeter:
    """Energy counters and power of some GPUs, summed, sampled by a process of their own.

    Energy is `nvmlDeviceGetTotalEnergyConsumption`, power the instant one where the GPU has it,
    else `nvmlDeviceGetPowerUsage`, a trailing average; see NVIDIA's NVML API reference.
    """

    source = Source.MEASURED

    def __init__(
        self,
        agent: AgentChannel,
        devices: Sequence[ListedDevice],
        period_s: float = SAMPLE_PERIOD_S,
    ) -> None:
        names = [device.name for device in devices]
        kinds = {name: names.count(name) for name in names}
        self.gpu = ", ".join(name if n == 1 else f"{n} x {name}" for name, n in kinds.items())
        self.driver: str | None = agent.driver
        self.uuids = tuple(device.uuid for device in devices)
        self._agent = agent
        self._ring = agent.start_sampling(self.uuids, period_s)
        self._seen = 0
        self._seen_s = time.monotonic()

    def read(self, now_s: float) -> PowerReading | None:
        """Return the newest sample once, or None until there is a newer one; does not wait.

        Raises `OperatorNeededError` if a GPU does not answer.
        """
        self._agent.check()
        written = self._ring.written
        if written == self._seen:
            if now_s - self._seen_s > self._agent.deadline_s:
                raise OperatorNeededError(
                    f"the GPU has not answered NVML for {now_s - self._seen_s:.0f} s; look at "
                    "`nvidia-smi` and the kernel log for Xid errors, then `tuner resume`"
                )
            return None
        self._seen, self._seen_s = written, now_s
        row = self._ring.row(written - 1)
        energy_j, power_w = sum(row[1::COLUMNS]), sum(row[2::COLUMNS])
        if math.isnan(energy_j) or math.isnan(power_w):
            return None
        clock_mhz = statistics.fmean(row[3::COLUMNS])
        return PowerReading(
            power_w=power_w,
            energy_j=energy_j,
            time_s=row[0],
            sm_clock_mhz=None if math.isnan(clock_mhz) else clock_mhz,
        )

    def states(self) -> tuple[DeviceState, ...]:
        """Read everything of each GPU now; waits for NVML, up to its deadline."""
        return tuple(
            DeviceState.from_json(self._agent.call("state", uuid=uuid)) for uuid in self.uuids
        )

    def timeline(self, start_s: float, end_s: float) -> PowerTimeline:
        """Return the samples from before `start_s` to after `end_s`, summed over the GPUs."""
        return self.device_timeline(start_s, end_s).summed(self.source)

    def device_timeline(self, start_s: float, end_s: float) -> DeviceTimeline:
        """Return what was sampled of each GPU from before `start_s` to after `end_s`."""
        table = np.array(self._ring.since(start_s), dtype=np.float64)
        table = table.reshape(-1, 1 + COLUMNS * len(self.uuids))
        columns = [table[:, 1 + k :: COLUMNS] for k in range(COLUMNS)]
        return DeviceTimeline(self.uuids, table[:, 0], *columns).part(start_s, end_s)

    def judge(self, start_s: float, end_s: float, context: WindowContext) -> WindowVerdict:
        """Judge by the samples and by the GPUs' states now; waits for NVML, up to its deadline."""
        window = EnergyWindow(
            start_s=start_s,
            end_s=end_s,
            timeline=self.device_timeline(start_s, end_s),
            before=context.before,
            after=self.states(),
            own_pids=context.own_pids,
            power_limit_w=context.power_limit_w,
        )
        return judge_window(window)

    def close(self) -> None:
        """End the NVML process; it also ends when the meter is no longer used."""
        self._agent.close()


def nvml_meter(
    gpu_count: int | None = None, *, deadline_s: float = 5.0, period_s: float = SAMPLE_PERIOD_S
) -> NvmlMeter | None:
    """Return a meter of the first `gpu_count` visible GPUs (all if None); None without NVML.

    Raises `PreflightError` where NVML is there but its GPUs have no energy counter or cannot be
    told apart, and `OperatorNeededError` where it does not answer.
    """
    agent = open_agent(deadline_s)
    if agent is None:
        return None
    try:
        devices = visible_devices(agent.devices, os.environ, gpu_count)
        if devices:
            meter = NvmlMeter(agent, devices, period_s)
            _require_counters(meter)
            return meter
    except BaseException:
        agent.close()
        raise
    agent.close()
    return None


def _require_counters(meter: NvmlMeter) -> None:
    for state in meter.states():
        if state.energy_j is None or (state.power_w is None and state.power_1s_average_w is None):
            raise PreflightError(
                f"NVML is here but gives no energy counter for {state.name} ({state.uuid}); the "
                "counter needs a Volta or newer GPU that is not split by MIG"
            )
