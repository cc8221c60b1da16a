"""The limits of each GPU, read by a process of its own: one that hangs does not hide the others."""

from __future__ import annotations

from tuner.devices.access import Access
from tuner.devices.limits import LimitState, opened_limits
from tuner.devices.nvidia.agent_channel import AgentChannel, open_agent
from tuner.errors import OperatorNeededError


class OneByOne:
    """The GPUs of this machine to be read."""

    def __init__(self, uuids: tuple[str, ...], *, deadline_s: float) -> None:
        self._uuids = uuids
        self._deadline_s = deadline_s

    def uuids(self) -> tuple[str, ...]:
        """Return the GPUs in NVML's order."""
        return self._uuids

    def state(self, uuid: str) -> LimitState:
        """Read one GPU; raises `OperatorNeededError` if it does not answer."""
        with opened_limits(Access.READ, uuid, deadline_s=self._deadline_s) as control:
            if control is None:
                raise OperatorNeededError(
                    f"{uuid} does not answer NVML; look at `nvidia-smi` and the kernel log for Xid "
                    "errors, then reset it or restart the machine"
                )
            return control.state(uuid)


def one_by_one(*, deadline_s: float = 5.0) -> OneByOne | None:
    """Return this machine's GPUs; None without NVML or without a GPU.

    Raises `OperatorNeededError` where NVML itself does not answer.
    """
    try:
        agent = open_agent(deadline_s)
    except OperatorNeededError:  # some GPU does not answer: which one is found out below
        return OneByOne(_listed_apart(deadline_s), deadline_s=deadline_s)
    if agent is None:
        return None
    uuids = tuple(device.uuid for device in agent.devices)
    agent.close()
    return OneByOne(uuids, deadline_s=deadline_s)


def _listed_apart(deadline_s: float) -> tuple[str, ...]:
    agent = AgentChannel(deadline_s, Access.READ)
    try:
        count = agent.count()
    finally:
        agent.close()
    return tuple(_uuid_at(index, deadline_s) for index in range(count))


def _uuid_at(index: int, deadline_s: float) -> str:
    agent = AgentChannel(deadline_s, Access.READ)
    try:
        agent.open(index=index)
        return agent.devices[0].uuid
    except OperatorNeededError:
        return f"the GPU at index {index}"
    finally:
        agent.close()
