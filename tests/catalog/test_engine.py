"""Engine profiles, and GPUs under them."""

from pathlib import Path

import pytest

from tuner.catalog.engine import engine_names, load_engine
from tuner.catalog.gpu import card_factor, gpu_names, gpu_yaml, load_gpu
from tuner.errors import UsageError


def test_the_newest_profile_is_the_default() -> None:
    assert engine_names() == ("vllm-0.11", "vllm-0.22")
    assert load_engine().name == "vllm-0.22"
    assert load_gpu("H100-SXM").engine == "vllm-0.22"
    assert load_gpu("H100-SXM", "vllm-0.11").layer_us == load_engine("vllm-0.11").layer_us


def test_a_profile_changes_nothing_of_the_card() -> None:
    for name in gpu_names():
        old, new = load_gpu(name, "vllm-0.11"), load_gpu(name)
        assert (old.memory_efficiency, old.compute_w) == (new.memory_efficiency, new.compute_w)


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown engine 'vllm-0\.9'"):
        load_gpu("H100-SXM", "vllm-0.9")


def test_a_saved_gpu_keeps_its_engine(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    saved = load_gpu("H100-SXM", "vllm-0.11").model_copy(update={"name": "mine"})
    path.write_text(gpu_yaml(saved))
    assert load_gpu(str(path)) == saved
    with pytest.raises(UsageError, match=r"was made for the engine 'vllm-0\.11'"):
        load_gpu(str(path), "vllm-0.22")


def test_cards_of_a_host_differ_by_ten_percent_at_most_and_always_alike() -> None:
    factors = [card_factor("H200-SXM", card) for card in range(64)]
    assert factors[0] == 1.0
    assert len(set(factors)) > 40
    assert all(0.9 <= factor <= 1.1 for factor in factors)
    assert max(factors) - min(factors) > 0.1
    nominal, third = load_gpu("H200-SXM"), load_gpu("H200-SXM:3")
    assert third.name == "H200-SXM:3"
    assert third.compute_w == nominal.compute_w * card_factor("H200-SXM", 3)
    assert third == load_gpu("H200-SXM:3")
