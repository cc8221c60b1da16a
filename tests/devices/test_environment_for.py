"""The variables that show a server some GPUs: indices, which every version of vLLM reads."""

import pytest
from helpers.nvml_standin import Standin

from tuner.devices.open import devices_for_servers, environment_for, list_devices
from tuner.errors import OperatorNeededError


@pytest.mark.parametrize(("asked", "indices"), [([1], "1"), ([1, 0], "0,1")])
def test_a_server_sees_the_gpus_that_are_meant(
    standin: Standin, asked: list[int], indices: str
) -> None:
    uuids = [standin.device(index).uuid for index in asked]
    variables = environment_for(uuids)
    assert variables["CUDA_VISIBLE_DEVICES"] == indices
    listed = list_devices()
    assert listed is not None
    shown = devices_for_servers(listed.devices, variables)
    assert {device.uuid for device in shown} == set(uuids)


def test_a_gpu_that_is_gone_is_named(standin: Standin) -> None:
    gone = standin.device(1).uuid
    standin.set_count(1)
    with pytest.raises(OperatorNeededError, match=gone):
        environment_for([standin.device(0).uuid, gone])
