from pathlib import Path

import pytest
import yaml

from tuner.catalog.gpu import Gpu, gpu_names, load_gpu
from tuner.errors import UsageError

WARM = {"coolant_c": 38, "kelvin_per_w": 0.025, "leakage_w_per_k": 2, "slowdown_c": 87}


def test_every_promised_gpu_is_shipped_with_a_source() -> None:
    promised = {"A100-SXM-80G", "H100-SXM", "H200-SXM", "B200-SXM", "L40S", "L4", "RTX-PRO-6000"}
    assert set(gpu_names()) == promised | {"RTX-5090", "RTX-3090", "RTX-4000-ADA"}
    for name in gpu_names():
        gpu = load_gpu(name)
        assert gpu.name == name
        assert len(gpu.source) > 40


def test_names_ignore_case() -> None:
    assert load_gpu("h100-sxm") == load_gpu("H100-SXM")


def test_unknown_name_is_a_sentence_with_near_names() -> None:
    with pytest.raises(UsageError, match="unknown GPU 'H100-SMX'; did you mean 'H100-SXM'"):
        load_gpu("H100-SMX")


def test_missing_file() -> None:
    with pytest.raises(UsageError, match=r"no file 'nowhere/x\.yaml'"):
        load_gpu("nowhere/x.yaml")


def test_a_users_own_gpu(tmp_path: Path, h100: Gpu) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**h100.model_dump(), "name": "mine"}), encoding="utf-8")
    assert load_gpu(str(path)).name == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_limit_w": 900}, "min_limit_w <= default_limit_w"),
        ({"knee_mhz": 5000}, "min_clock_mhz <= knee_mhz"),
        ({"idle_w": 500}, "idle_w <= loaded_idle_w"),
        ({"memory_efficiency": 1.5}, "memory_efficiency"),
        (
            {"thermal": {**WARM, "coolant_c": 60, "warmer_k": 30}},
            r"coolant_c \+ warmer_k < slowdown_c",
        ),
        ({"memroy_efficiency": 0.5}, "there is no such field"),
    ],
)
def test_a_wrong_file_names_the_field(
    tmp_path: Path, h100: Gpu, change: dict[str, float], message: str
) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({**h100.model_dump(), **change}), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        load_gpu(str(path))


def test_a_gpu_without_measurements_is_refused_in_a_sentence_of_its_own() -> None:
    with pytest.raises(UsageError, match=r"GB10 is not emulated: .* write a \.yaml"):
        load_gpu("GB10")
