"""A baseline of the user's own: from a file of vLLM's, from sections, and from --set."""

from pathlib import Path

import pytest

from tuner.errors import UsageError
from tuner.evaluation.factory import baseline_configuration, fixed_configuration
from tuner.spec.search_space import load_space
from tuner.spec.study import StudySpec, spec_from

GIVEN = {"model": "m", "trials": 3}


def spec_of_file(tmp_path: Path, text: str, **options: object) -> StudySpec:
    path = tmp_path / "flags.yaml"
    path.write_text(text)
    return spec_from(None, {**GIVEN, "baseline": str(path), **options})


def test_a_config_file_of_vllm_is_a_baseline(tmp_path: Path) -> None:
    spec = spec_of_file(
        tmp_path,
        "tensor-parallel-size: 4\nno-enable-prefix-caching: true\n"
        "speculative-config: {method: ngram, num_speculative_tokens: 3}\n",
        set=["max_num_seqs=64", "VLLM_X=1"],
    )
    assert spec.baseline is not None
    assert spec.baseline.flags == {
        "tensor_parallel_size": 4,
        "enable_prefix_caching": False,
        "speculative_config.method": "ngram",
        "speculative_config.num_speculative_tokens": 3,
        "max_num_seqs": 64,
    }
    assert spec.baseline.environment == {"VLLM_X": 1}
    stored = StudySpec.model_validate(spec.model_dump(mode="json"))
    assert stored.baseline == spec.baseline


def test_a_false_that_vllm_obeys_is_taken(tmp_path: Path) -> None:
    dashes = spec_of_file(tmp_path, "enable-prefix-caching: false").baseline
    section = spec_of_file(tmp_path, "flags: {enable_prefix_caching: false}").baseline
    assert dashes is not None and dashes == section
    assert dashes.flags == {"enable_prefix_caching": False}


def test_what_the_space_does_not_search_is_shared_by_all(tmp_path: Path) -> None:
    spec = spec_of_file(tmp_path, "flags: {max_model_len: 8192, max_num_seqs: 64}")
    space = load_space("default")
    assert dict(fixed_configuration(space, spec.baseline).flags) == {"max_model_len": 8192}
    own = baseline_configuration(space, spec.baseline)
    assert dict(own.flags) == {"max_num_seqs": 64}
    reported = {"max_num_batched_tokens": 8192, "gpu_memory_utilization": 0.92}
    parameters = space.baseline_parameters({**reported, "max_num_seqs": 1024}, own)
    assert parameters["log2_max_num_seqs"] == 6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"set": ["power_limit_w=400"]}, "not part of it"),
        ({"set": ["max_num_seqs"]}, "is not KNOB=VALUE"),
        ({"baseline": {"environment": {"HF_TOKEN": "x"}}}, "looks like a secret"),
        ({"baseline": {"flags": {"a": [1]}}}, "a value or fields are needed"),
        ({"baseline": "nothing.yaml"}, "cannot read"),
        ({"baseline": {"enable_prefix_caching": False}}, "write enable-prefix-caching: false"),
    ],
)
def test_a_bad_baseline_is_one_sentence(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        spec_from(None, {**GIVEN, **options})
