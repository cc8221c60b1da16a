"""NVML answers at random: whatever it says, the NVML process answers and lives."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pynvml
from helpers.hostile import cases, one_sentence_at_most
from hypothesis import given
from hypothesis import strategies as st

from tuner.devices.device_state import DeviceState
from tuner.devices.limit_control import Access
from tuner.devices.nvidia.agent import Agent, _answer, _send
from tuner.devices.nvidia.faults import NvmlFault
from tuner.devices.nvidia.ring import create_ring_file

CODES = st.one_of(st.sampled_from(range(1, 31)), st.integers(-5, 2000), st.just(999))
ERRORS = st.one_of(
    CODES.map(pynvml.NVMLError),
    st.sampled_from(
        [
            pynvml.NVMLLibraryMismatchError("older"),
            ValueError("no"),
            OverflowError(),
            AttributeError("pid"),
            KeyError(5),
            UnicodeDecodeError("utf-8", b"\xff\xfe", 0, 1, "invalid start byte"),
        ]
    ),
)
NUMBERS = st.one_of(st.none(), st.integers(0, 2**64 - 1), st.just(2**32 - 1), st.text(max_size=3))
PROCESSES = st.lists(st.builds(SimpleNamespace, pid=st.integers(0, 2**32 - 1)), max_size=3)
FIELDS = st.lists(
    st.builds(
        SimpleNamespace,
        nvmlReturn=CODES | st.just(0),
        value=st.builds(SimpleNamespace, uiVal=st.integers(0, 2**32 - 1)),
    ),
    min_size=1,
    max_size=1,
)
ANSWERS: dict[str, st.SearchStrategy[Any]] = {
    "nvmlInit": st.none(),
    "nvmlSystemGetDriverVersion": st.one_of(st.just("580.1"), st.just(b"5\xff")),
    "nvmlDeviceGetCount": st.integers(0, 3),
    "nvmlDeviceGetHandleByIndex": st.just(object()),
    "nvmlDeviceGetHandleByUUID": st.just(object()),
    "nvmlDeviceGetIndex": st.integers(0, 3),
    "nvmlDeviceGetUUID": st.just("GPU-0"),
    "nvmlDeviceGetName": st.one_of(st.text(max_size=5), st.binary(max_size=5)),
    "nvmlDeviceGetFieldValues": FIELDS,
    "nvmlDeviceGetMigMode": st.lists(NUMBERS, min_size=2, max_size=2),
    "nvmlDeviceGetMemoryInfo": st.builds(SimpleNamespace, used=NUMBERS, total=NUMBERS),
    "nvmlDeviceGetUtilizationRates": st.builds(SimpleNamespace, gpu=NUMBERS),
    "nvmlDeviceGetComputeRunningProcesses": PROCESSES,
    "nvmlDeviceGetGraphicsRunningProcesses": PROCESSES,
    "nvmlDeviceGetPowerManagementLimitConstraints": st.lists(NUMBERS, min_size=2, max_size=2),
    "nvmlDeviceGetSupportedMemoryClocks": st.lists(st.integers(0, 9000), max_size=3),
    "nvmlDeviceGetSupportedGraphicsClocks": st.lists(st.integers(0, 9000), max_size=3),
}
OTHERS = [
    "nvmlDeviceGetPersistenceMode", "nvmlDeviceGetTotalEnergyConsumption",
    "nvmlDeviceGetPowerUsage", "nvmlDeviceGetClockInfo", "nvmlDeviceGetMaxClockInfo",
    "nvmlDeviceGetTemperature", "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetPowerManagementDefaultLimit", "nvmlDeviceGetPowerManagementLimit",
    "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceSetPowerManagementLimit",
    "nvmlDeviceSetGpuLockedClocks", "nvmlDeviceResetGpuLockedClocks",
]  # fmt: skip
UUID = {"uuid": "GPU-0"}
COMMANDS: list[tuple[str, dict[str, Any]]] = [
    ("count", {}),
    ("open", {"uuid": None, "index": None}),
    ("open", {"uuid": "GPU-0", "index": None}),
    ("state", UUID),
    ("sample", {"uuids": ["GPU-0"], "period_s": 0.1}),
    ("persistence_mode", UUID),
    ("memory_used_bytes", UUID),
    ("set_power_limit", UUID | {"watts": 300.0}),
    ("nearest_sm_clock", UUID | {"mhz": 1500}),
    ("lock_sm_clock", UUID | {"mhz": 1500}),
    ("unlock_sm_clock", UUID),
]


def answering(outcome: Any) -> Callable[..., Any]:
    def function(*_arguments: Any) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return function


@cases()
@given(data=st.data())
def test_whatever_nvml_says_is_answered(data: st.DataObject) -> None:
    often = st.sampled_from([False, False, False, False, True])
    kinds = {**ANSWERS, **dict.fromkeys(OTHERS, NUMBERS)}
    outcomes = {
        name: data.draw(ERRORS if data.draw(often) else kind) for name, kind in kinds.items()
    }
    agent = Agent(create_ring_file(), Access.SET)
    functions = {name: answering(outcome) for name, outcome in outcomes.items()}
    with patch.multiple(pynvml, **functions):
        for command, arguments in COMMANDS:
            with one_sentence_at_most():
                ask(agent, command, arguments)


def ask(agent: Agent, command: str, arguments: dict[str, Any]) -> None:
    reply = _answer(agent.carry_out, command, arguments)
    sent = io.BytesIO()
    _send(sent, {"id": 1, **reply})
    if agent.sampler is not None:
        _answer(agent.sampler.sample)
    told = json.loads(sent.getvalue())
    if "fault" in told:
        assert NvmlFault(told["fault"])
        assert told["message"]
    elif command == "state":
        assert DeviceState.from_json(told["answer"]).uuid == "GPU-0"
