"""CUDA_VISIBLE_DEVICES and CUDA_DEVICE_ORDER, as CUDA reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.devices.device_state import ListedDevice
from tuner.devices.nvidia.visible import visible_devices
from tuner.errors import PreflightError

UUIDS = ("GPU-aaaa1111-0000", "GPU-aaaa2222-0000", "GPU-bbbb3333-0000", "GPU-cccc4444-0000")
SAME = tuple(ListedDevice(i, uuid, "H100", False) for i, uuid in enumerate(UUIDS))
MIXED = (*SAME[:3], ListedDevice(3, UUIDS[3], "RTX A6000", None))


def visible(
    text: str | None, devices: tuple[ListedDevice, ...] = SAME, count: int | None = None, **env: str
) -> list[int]:
    environment = env if text is None else {**env, "CUDA_VISIBLE_DEVICES": text}
    found = visible_devices(devices, environment, count)
    return [UUIDS.index(device.uuid) for device in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2", [2]),
        ("3,0", [3, 0]),
        (" 1 , 2 ", [1, 2]),
        ("0,7,1", [0]),  # everything from the first invalid entry on is ignored
        ("1,-1,2", [1]),
        ("7", []),
        ("GPU-bbbb3333-0000", [2]),
        ("GPU-bbbb", [2]),
        ("GPU-cccc,GPU-aaaa1", [3, 0]),
        ("GPU-cccc,GPU-dddd,GPU-bbbb", [3]),
        ("GPU-cccc,1", [3, 1]),
    ],
)
def test_as_cuda_reads_it(text: str | None, expected: list[int]) -> None:
    assert visible(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("GPU-aaaa", "several GPUs begin"),
        ("GPU-dddd", "no GPU of this machine"),
        ("MIG-8a7b", "MIG slice"),
        ("0,MIG-GPU-aaaa1111/1/0", "MIG slice"),
        ("1,1", "twice"),
        ("1,GPU-aaaa2", "twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(PreflightError, match=message):
        visible(text)


@given(st.permutations(range(4)), st.integers(0, 4))
def test_the_first_ones_are_taken_in_their_order(order: list[int], count: int) -> None:
    assert visible(",".join(map(str, order)), count=count) == order[:count]
    by_uuid = ",".join(UUIDS[i] for i in order)
    assert visible(by_uuid, count=count) == order[:count]


def test_different_models_need_a_known_order() -> None:
    for text, count in (("0", None), ("0,1", None), (None, 2), ("0,1,2,3", 1)):
        with pytest.raises(PreflightError, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
            visible(text, MIXED, count)
        with pytest.raises(PreflightError, match="H100, RTX A6000"):
            visible(text, MIXED, count, CUDA_DEVICE_ORDER="FASTEST_FIRST")
        assert visible(text, MIXED, count, CUDA_DEVICE_ORDER="PCI_BUS_ID")


def test_different_models_do_not_matter_where_order_does_not() -> None:
    assert visible(None, MIXED) == [0, 1, 2, 3]
    assert visible("3,2,1,0", MIXED) == [3, 2, 1, 0]
    assert visible("GPU-cccc,GPU-bbbb", MIXED) == [3, 2]


def test_a_gpu_split_by_mig_is_refused_only_if_it_is_used() -> None:
    devices = (SAME[0], ListedDevice(1, UUIDS[1], "H100", True), *SAME[2:])
    with pytest.raises(PreflightError, match=f"{UUIDS[1]}.*split by MIG"):
        visible("0,1", devices)
    assert visible("0,2", devices) == [0, 2]
