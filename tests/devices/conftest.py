"""The stand-in for NVML in place of any real one, for every test of this folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.nvml_standin import Standin
from helpers.nvml_standin.standin import library_folder

from tuner.devices.nvidia.nvml_meter import NvmlMeter, nvml_meter


@pytest.fixture(autouse=True)
def no_real_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the fixture `standin` there is a library and no driver."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library_folder()))
    monkeypatch.delenv("NVML_STANDIN_STATE", raising=False)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ZEUSD_SOCK_PATH", "ZEUSD_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def standin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_real_nvml: None
) -> Iterator[Standin]:
    """Two GPUs, found by every process that is started from here."""
    made = Standin.create(tmp_path / "nvml.state", n_devices=2)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    yield made
    made.mend()  # a process that still hangs may go
    for index in range(2):
        made.device(index).mend()


@pytest.fixture
def meter() -> Iterator[Callable[..., NvmlMeter]]:
    """Make meters that are closed after the test."""
    made: list[NvmlMeter] = []

    def make(*args: int, **options: float) -> NvmlMeter:
        found = nvml_meter(*args, **options)
        assert found is not None
        made.append(found)
        return found

    yield make
    for one in made:
        one.close()
