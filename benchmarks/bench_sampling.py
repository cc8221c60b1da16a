"""What sampling costs and how exact it is, on the stand-in for NVML: prints two tables.

    python benchmarks/bench_sampling.py [--seconds 60] [--without-zeus]

Ends with 1 if a target is missed. ZeusMonitor, which measures the same window of the same
devices, comes from PyPI into a virtual environment of its own in the temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from helpers.nvml_standin import Standin

from tuner.devices.energy_window import COUNTER_APART, EnergyWindow, judge_window
from tuner.devices.nvidia.nvml_meter import NvmlMeter, nvml_meter
from tuner.devices.timeline import DeviceTimeline

DEVICES = 8
UPDATE_S = 0.1  # the slowest energy counters
READ_S = 0.0039  # of a core, as an H200 takes for its counter (driver 580.159); the rest is free
MAX_CORE_SHARE = 0.22
MAX_ERROR = 0.005
MAX_ZEUS_DIFFERENCE = 0.01
ZEUS = "zeus==0.16.0"
ZEUS_SCRIPT = """
import json, sys, time
from zeus.monitor import ZeusMonitor
monitor = ZeusMonitor(gpu_indices=list(range(int(sys.argv[1]))))
print("ready", flush=True)
sys.stdin.readline()
start_s = time.monotonic()
monitor.begin_window("bench", sync_execution=False)
time.sleep(float(sys.argv[2]))
found = monitor.end_window("bench", sync_execution=False)
print(json.dumps([start_s, time.monotonic(), found.gpu_energy]), flush=True)
"""


def steer(standin: Standin) -> list[str]:
    """Give each device a profile; return their names."""
    for i in range(DEVICES):
        standin.device(i).set(counter_period_s=UPDATE_S, counter_read_s=READ_S)
    standin.device(0).constant(420)
    standin.device(1).square(150, 450, period_s=1.7)
    standin.device(2).square(100, 700, period_s=10.0, duty=0.3)
    standin.device(3).square(200, 600, period_s=0.03, duty=0.25)
    standin.device(4).square(90, 650, period_s=0.07, duty=0.1)
    standin.device(5).square(100, 500, period_s=3.1)
    standin.device(5).fail("nvmlDeviceGetFieldValues", 3)
    standin.device(6).set(counter_gain=0.9)
    standin.device(7).set(counter_gain=1.1)
    return [
        "constant 420 W",
        "square 150/450 W, 1.7 s",
        "square 100/700 W, 10 s",
        "bursts 600 W, 30 ms",
        "bursts 650 W, 70 ms",
        "1 s sensor, square 3.1 s",
        "counter 10 % low",
        "counter 10 % high",
    ]


def zeus_python() -> Path:
    folder = Path(tempfile.gettempdir()) / f"bench-{ZEUS.replace('==', '-')}-{os.getuid()}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", ZEUS], check=True)
        (folder / "ready").touch()
    return python


def one_gpu(timeline: DeviceTimeline, index: int) -> DeviceTimeline:
    part = slice(index, index + 1)
    return DeviceTimeline(
        timeline.uuids[part],
        timeline.times_s,
        timeline.energy_j[:, part],
        timeline.power_w[:, part],
        timeline.sm_clock_mhz[:, part],
        timeline.temperature_c[:, part],
        timeline.event_reasons[:, part],
    )


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def wait_measured(seconds: float, with_zeus: bool) -> tuple[float, float, dict[str, float]]:
    """Let a window pass, measured by Zeus if asked; return its edges and Zeus's joules."""
    if not with_zeus:
        start_s = time.monotonic()
        time.sleep(seconds)
        return start_s, time.monotonic(), {}
    command = [zeus_python(), "-c", ZEUS_SCRIPT, str(DEVICES), str(seconds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as zeus:
        assert zeus.stdin is not None and zeus.stdout is not None
        assert "ready" in zeus.stdout.readline()
        zeus.stdin.write("\n")
        zeus.stdin.flush()
        start_s, end_s, joules = json.loads(zeus.stdout.readline())
        return start_s, end_s, joules


def accuracy(
    standin: Standin, names: list[str], meter: NvmlMeter, seconds: float, with_zeus: bool
) -> bool:
    before = meter.states()
    start_s, end_s, zeus_j = wait_measured(seconds, with_zeus)
    time.sleep(0.3)
    sampled, after = meter.device_timeline(start_s, end_s), meter.states()
    print(f"\nenergy over {end_s - start_s:.1f} s, counters updated every {UPDATE_S:g} s")
    print(f"{'profile':26}{'true J':>10}{'counter':>9}{'integral':>10}{'zeus':>9}  flagged")
    good = True
    for i, name in enumerate(names):
        true_j = standin.device(i).energy_j(end_s) - standin.device(i).energy_j(start_s)
        window = EnergyWindow(
            start_s, end_s, one_gpu(sampled, i), (before[i],), (after[i],), own_pids=()
        )
        verdict = judge_window(window)
        assert verdict.energy_j is not None and verdict.integral_j is not None
        gain = standin.device(i).get("counter_gain")
        error = verdict.energy_j / (true_j * gain) - 1
        apart = COUNTER_APART in verdict.flags
        good &= verdict.valid and abs(error) <= MAX_ERROR and (apart or gain == 1)
        difference = "-"
        if zeus_j:
            share = verdict.energy_j / zeus_j[str(i)] - 1
            good &= abs(share) <= MAX_ZEUS_DIFFERENCE
            difference = f"{share:+.2%}"
        print(
            f"{name:26}{true_j:10.0f}{verdict.energy_j / true_j - 1:+9.2%}"
            f"{verdict.integral_j / true_j - 1:+10.2%}{difference:>9}  {'yes' if apart else 'no'}"
        )
    return good


def cost(meter: NvmlMeter, seconds: float) -> bool:
    child, own = psutil.Process(meter._agent.pid), psutil.Process()
    started_s, before, own_before = time.monotonic(), cpu_s(child), cpu_s(own)
    readings = 0
    while time.monotonic() < started_s + seconds:
        readings += meter.read(time.monotonic()) is not None
        time.sleep(0.1)
    wall_s = time.monotonic() - started_s
    share, own_share = (cpu_s(child) - before) / wall_s, (cpu_s(own) - own_before) / wall_s
    print(f"\nsampling {DEVICES} devices for {wall_s:.0f} s: {readings / wall_s:.1f} samples/s")
    print(f"CPU s per wall s: sampling process {share:.4f}, reading in the tuner {own_share:.4f}")
    return share <= MAX_CORE_SHARE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--without-zeus", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        standin = Standin.create(Path(folder) / "nvml.state", DEVICES)
        os.environ |= standin.environment()
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        names = steer(standin)
        meter = nvml_meter()
        assert meter is not None
        cheap = cost(meter, options.seconds / 2)
        exact = accuracy(standin, names, meter, options.seconds, with_zeus=False)
        if not options.without_zeus:  # at its edges Zeus reads one counter after the other
            for i in range(DEVICES):
                standin.device(i).set(counter_read_s=0.0)
            exact &= accuracy(standin, names, meter, options.seconds, with_zeus=True)
        meter.close()
    print(f"\ncost {'met' if cheap else 'MISSED'}, accuracy {'met' if exact else 'MISSED'}")
    return 0 if cheap and exact else 1


if __name__ == "__main__":
    sys.exit(main())
