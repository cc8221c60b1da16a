"""The NVML process: deadlines, its own end, and what it leaves alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from helpers.alive import ends, lives, wait_until_stopped
from helpers.nvml_standin import Standin
from helpers.nvml_standin.standin import DRIVER_NOT_LOADED, GPU_IS_LOST, NOT_SUPPORTED, UNKNOWN

from tuner.devices.device_state import DeviceState
from tuner.devices.limit_control import Access
from tuner.devices.nvidia.agent_channel import AgentChannel, open_agent
from tuner.errors import OperatorNeededError, PreflightError


@pytest.fixture
def agent(standin: Standin) -> Iterator[AgentChannel]:
    channel = open_agent(5.0, Access.SET)
    assert channel is not None
    yield channel
    channel.close()


def state_of(agent: AgentChannel, index: int) -> DeviceState:
    return DeviceState.from_json(agent.call("state", uuid=agent.devices[index].uuid))


def test_everything_of_a_gpu(standin: Standin, agent: AgentChannel) -> None:
    device = standin.device(1)
    device.constant(400)
    device.set(
        idle_sm_mhz=1755,
        temperature_c=61,
        gpu_percent=93,
        memory_percent=40,
        memory_used_bytes=5 * 2**30,
        event_reasons=0x1,
    )
    device.processes({4242: 2**30, 17: 2**20})
    asked_s = time.monotonic()
    state = state_of(agent, 1)
    assert agent.driver == "575.57.08"
    assert (state.uuid, state.name) == (device.uuid, "NVIDIA H100 80GB HBM3")
    assert asked_s <= state.time_s <= time.monotonic()
    assert state.energy_j == pytest.approx(device.energy_j(state.time_s), abs=4)
    assert state.power_w == 400
    assert state.power_1s_average_w == pytest.approx(300, abs=100)  # still remembers before
    assert (state.sm_clock_mhz, state.max_sm_clock_mhz) == (1755, 1980)
    assert state.temperature_c == 61
    assert state.gpu_utilisation == 0.93
    assert (state.memory_used_bytes, state.memory_total_bytes) == (5 * 2**30, 80 * 2**30)
    assert state.event_reasons == 0x1
    assert (state.power_limit_w, state.default_power_limit_w) == (700, 700)
    assert (state.min_power_limit_w, state.max_power_limit_w) == (200, 700)
    assert state.enforced_power_limit_w == 700
    assert state.pids == (17, 4242)
    assert state.mig_enabled is False


def test_what_is_unsupported_is_none_and_the_rest_is_not(
    standin: Standin, agent: AgentChannel
) -> None:
    for function in (
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetPowerUsage",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetMaxClockInfo",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetComputeRunningProcesses",
        "nvmlDeviceGetMigMode",
    ):
        standin.device(0).fail(function, NOT_SUPPORTED)
    state = state_of(agent, 0)
    assert state.energy_j is state.power_w is state.power_1s_average_w is None
    assert state.sm_clock_mhz is state.max_sm_clock_mhz is None
    assert state.temperature_c is state.gpu_utilisation is None
    assert state.memory_used_bytes is state.memory_total_bytes is None
    assert state.event_reasons is state.pids is state.mig_enabled is None
    assert state.power_limit_w == 700


def test_no_driver_is_none_and_leaves_no_process(standin: Standin) -> None:
    standin.fail("nvmlInit", DRIVER_NOT_LOADED)
    assert open_agent(5.0) is None


def test_a_broken_driver_is_not_taken_for_no_driver(standin: Standin) -> None:
    standin.fail("nvmlInit", 18)  # library and kernel module are of different versions
    with pytest.raises(OperatorNeededError, match="Xid"):
        open_agent(5.0)


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetCount"])
def test_nvml_that_hangs_at_the_start(standin: Standin, function: str) -> None:
    standin.hang(function)
    with pytest.raises(OperatorNeededError, match="does not answer NVML"):
        open_agent(0.1)


def test_a_lost_gpu_needs_an_operator_and_the_others_still_answer(
    standin: Standin, agent: AgentChannel
) -> None:
    standin.device(0).fail("nvmlDeviceGetTemperature", GPU_IS_LOST)
    with pytest.raises(OperatorNeededError, match="GPU is lost"):
        state_of(agent, 0)
    assert state_of(agent, 1).temperature_c == 45


def test_an_error_that_passes_is_asked_again(standin: Standin, agent: AgentChannel) -> None:
    device = standin.device(0)
    device.fail("nvmlDeviceGetMemoryInfo", UNKNOWN)
    threading.Timer(0.25, device.mend).start()
    assert agent.call("memory_used_bytes", uuid=agent.devices[0].uuid) == 0


def test_an_error_that_lasts_needs_an_operator(standin: Standin) -> None:
    agent = open_agent(0.3)
    assert agent is not None
    standin.device(0).fail("nvmlDeviceGetMemoryInfo", UNKNOWN)
    with pytest.raises(OperatorNeededError, match=r"memory of GPU-.*, for 0\.3 s"):
        agent.call("memory_used_bytes", uuid=agent.devices[0].uuid)
    standin.device(0).mend()
    assert agent.call("memory_used_bytes", uuid=agent.devices[0].uuid) == 0
    agent.close()


def test_a_name_that_is_no_text(standin: Standin) -> None:
    standin.device(1).set(name=b"NVIDIA RTX \xe9\xff")
    agent = open_agent(5.0)
    assert agent is not None
    assert [device.name for device in agent.devices][1] == "NVIDIA RTX \ufffd\ufffd"
    agent.close()


@pytest.mark.parametrize("pid", [0, 2**32 - 1, 2**22 + 1])
def test_processes_that_cannot_be_are_unknown(
    standin: Standin, agent: AgentChannel, pid: int
) -> None:
    standin.device(0).processes({pid: 2**30, os.getpid(): 2**30})
    assert state_of(agent, 0).pids is None
    standin.device(0).processes({os.getpid(): 2**30})
    assert state_of(agent, 0).pids == (os.getpid(),)


def test_a_command_that_makes_no_sense_is_answered(agent: AgentChannel) -> None:
    with pytest.raises(PreflightError, match="TypeError"):
        agent.call("set_power_limit", uuid=agent.devices[0].uuid, volts=3)
    assert agent.call("memory_used_bytes", uuid=agent.devices[0].uuid) == 0


def test_a_slow_answer_within_the_deadline_is_an_answer(
    standin: Standin, agent: AgentChannel
) -> None:
    standin.device(0).delay("nvmlDeviceGetMemoryInfo", 0.4)
    assert agent.call("memory_used_bytes", uuid=agent.devices[0].uuid) == 0


def test_the_process_does_not_outlive_its_channel(agent: AgentChannel) -> None:
    assert lives(agent.pid)
    agent.close()
    agent.close()
    assert not lives(agent.pid)
    with pytest.raises(ValueError, match="closed"):
        agent.call("memory_used_bytes", uuid=agent.devices[0].uuid)


def test_a_forgotten_channel_ends_its_process(standin: Standin) -> None:
    channel = open_agent(5.0)
    assert channel is not None
    pid = channel.pid
    del channel
    assert ends(pid, within_s=2)


def test_a_process_that_dies_is_noticed(agent: AgentChannel) -> None:
    os.kill(agent.pid, signal.SIGKILL)
    with pytest.raises(OperatorNeededError, match="ended unexpectedly"):
        agent.call("memory_used_bytes", uuid=agent.devices[0].uuid)


def test_signals_to_the_group_leave_it_able_to_put_limits_back(
    standin: Standin, agent: AgentChannel
) -> None:
    uuid = agent.devices[0].uuid
    agent.call("set_power_limit", uuid=uuid, watts=300)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(agent.pid, number)
    time.sleep(0.1)
    agent.call("set_power_limit", uuid=uuid, watts=650)
    assert standin.device(0).limit_w == 650


def test_an_unkillable_process_is_left_behind(
    agent: AgentChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in an uninterruptible kernel call is: KILL does nothing until the call returns."""
    os.kill(agent.pid, signal.SIGSTOP)
    wait_until_stopped(agent.pid)
    monkeypatch.setattr(agent._popen, "kill", lambda: None)
    agent.close()  # it would wait for ever
    assert lives(agent.pid)
    os.kill(agent.pid, signal.SIGKILL)
    agent._popen.wait(5)


PARENT = """
import sys, time
from tuner.devices.limit_control import Access
from tuner.devices.nvidia.agent_channel import open_agent
agent = open_agent(60.0, Access.SET)
uuid = agent.devices[0].uuid
agent.call("set_power_limit", uuid=uuid, watts=321)
if sys.argv[1] == "sampling":
    agent.start_sampling([uuid], 0.05)
print(agent.pid, flush=True)
sys.stdin.readline()
agent.call("memory_used_bytes", uuid=uuid)
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["idle", "sampling", "hanging"])
def test_it_ends_with_its_parent_and_leaves_limits_alone(standin: Standin, state: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, state],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdin is not None and parent.stdout is not None
        pid = int(parent.stdout.readline())
        if state == "hanging":
            standin.device(0).hang("nvmlDeviceGetMemoryInfo")
            parent.stdin.write("\n")
            parent.stdin.flush()
            time.sleep(0.3)
        assert lives(pid)
        parent.kill()
        assert ends(pid, within_s=3)
    assert standin.device(0).limit_w == 321
