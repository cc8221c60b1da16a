"""The limits of each GPU, read by a process of its own: one that hangs does not hide the others."""

from __future__ import annotations

from contextlib import closing

from tuner.devices.limit_control import Access, LimitState
from tuner.devices.nvidia.agent_channel import AgentChannel, open_agent
from tuner.devices.nvidia.nvml_limits import nvml_limits
from tuner.errors import OperatorNeededError


class IsolatedLimits:
    """Reads the GPUs of this machine, each through its own NVML process."""

    def __init__(self, uuids: tuple[str, ...], *, deadline_s: float) -> None:
        self._uuids = uuids
        self._deadline_s = deadline_s

    def uuids(self) -> tuple[str, ...]:
        """Return the GPUs in NVML's order; a GPU that hangs has a description for a UUID."""
        return self._uuids

    def state(self, uuid: str) -> LimitState:
        """Read one GPU; raises `OperatorNeededError` if it does not answer."""
        control = nvml_limits(Access.READ, uuid, self._deadline_s)
        if control is None:
            raise OperatorNeededError(
                f"{uuid} does not answer NVML; look at `nvidia-smi` and the kernel log for Xid "
                "errors, then reset it or restart the machine"
            )
        with closing(control):
            return control.state(uuid)


def isolated_nvml_limits(deadline_s: float) -> IsolatedLimits | None:
    """Return a reader of this machine's GPUs; None without NVML or without a GPU.

    Raises `OperatorNeededError` where NVML itself does not answer.
    """
    try:
        agent = open_agent(deadline_s)
    except OperatorNeededError:  # some GPU does not answer: which one is found out below
        return IsolatedLimits(_uuids_one_by_one(deadline_s), deadline_s=deadline_s)
    if agent is None:
        return None
    uuids = tuple(device.uuid for device in agent.devices)
    agent.close()
    return IsolatedLimits(uuids, deadline_s=deadline_s)


def _uuids_one_by_one(deadline_s: float) -> tuple[str, ...]:
    with closing(AgentChannel(deadline_s, Access.READ)) as agent:
        count = agent.count()
    return tuple(_uuid_at(index, deadline_s) for index in range(count))


def _uuid_at(index: int, deadline_s: float) -> str:
    with closing(AgentChannel(deadline_s, Access.READ)) as agent:
        try:
            agent.open(index=index)
        except OperatorNeededError:
            return f"the GPU at index {index}"
        return agent.devices[0].uuid
