from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from tuner.configuration import Configuration
from tuner.records import Source
from tuner.report.recommend import Recommendation, recommend
from tuner.report.vllm_config import vllm_config
from tuner.store import Store


@pytest.fixture
def found(store: Store) -> Recommendation:
    return recommend(store)


def having(found: Recommendation, **sections: dict[str, object]) -> Recommendation:
    configuration = Configuration(**sections)  # type: ignore[arg-type]
    return replace(found, best=replace(found.best, configuration=configuration))


def test_flags_are_dash_spelled_and_false_is_a_no_flag(found: Recommendation) -> None:
    assert yaml.safe_load(vllm_config(found)) == {
        "model": "meta-llama/Llama-3.1-8B",
        "max-num-seqs": 512,
        "no-enable-prefix-caching": True,
    }


def test_values_that_look_like_others_stay_what_they_are(found: Recommendation) -> None:
    flags: dict[str, object] = {
        "dtype": "auto",
        "seed": "007",
        "quantization": "null",
        "compilation_config": '{"level": 3}',
        "gpu_memory_utilization": 0.9,
        "async_scheduling": True,
        "revision": "a: b # c\n d",
    }
    read = yaml.safe_load(vllm_config(having(found, flags=flags)))
    assert read == {"model": "meta-llama/Llama-3.1-8B"} | {
        name.replace("_", "-"): value for name, value in flags.items()
    }


def test_what_yaml_cannot_set_is_in_the_comments_with_how_to_undo_it(
    found: Recommendation,
) -> None:
    text = vllm_config(
        having(
            found,
            environment={"VLLM_USE_X": True, "EVIL": "a\nmodel: other"},
            device={"power_limit_w": 400.0, "sm_clock_mhz": 1410},
        )
    )
    assert "#   export VLLM_USE_X=1" in text
    assert "nvidia-smi -i N -pl 400\n" in text
    assert "nvidia-smi -i N -lgc 1410,1410" in text
    assert text.count("undo:") == 2
    assert yaml.safe_load(text) == {"model": "meta-llama/Llama-3.1-8B"}


def test_provenance_and_the_emulated_label(found: Recommendation) -> None:
    text = vllm_config(found)
    for part in ("study night, trial 2", "H100", "570.86", "0.11.0", "p99_tpot_ms<=50", "37.5 %"):
        assert part in text
    assert "EMULATED" not in text
    fake = replace(found, study=replace(found.study, energy_source=Source.EMULATED))
    assert "EMULATED energy:" in vllm_config(fake)
