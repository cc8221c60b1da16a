from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ValidationError

from tuner.catalog.shipped import shipped_folder
from tuner.catalog.yaml_files import validate
from tuner.errors import UsageError
from tuner.spec.device_ranges import example_ranges
from tuner.spec.search_space import SearchSpace, load_space

SPACE = """
name: mine
fixed:
  flags: {max_model_len: 2048}
flags:
  max_num_seqs: {type: power_of_two, low: 8, high: 64}
  gpu_memory_utilization: {type: float, low: 0.7, high: 0.95, step: 0.05}
  enable_prefix_caching: {type: choice, choices: [true, false]}
environment:
  VLLM_ATTENTION_BACKEND: {type: choice, choices: [FLASH_ATTN, FLASHINFER], default: FLASH_ATTN}
device:
  power_limit_w: {type: int, low: 300, high: 700, step: 100}
load:
  request_rate: {type: float, low: 0.5, high: 8, log: true}
"""
DEFAULTS = {
    "max_num_seqs": 64,
    "gpu_memory_utilization": 0.9,
    "enable_prefix_caching": True,
    "power_limit_w": 700,
    "request_rate": 2.0,
}


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("path", sorted(shipped_folder("search_spaces").glob("*.yaml")))
def test_shipped_spaces_are_valid_and_named_as_their_file(path: Path) -> None:
    assert load_space(path.stem, example_ranges).name == path.stem


@given(st.data())
def test_every_sampled_point_is_a_configuration_and_back(data: st.DataObject) -> None:
    space = validate("test", yaml.safe_load(SPACE), SearchSpace)
    parameters = {}
    for name, distribution in space.distributions().items():
        if isinstance(distribution, CategoricalDistribution):
            parameters[name] = data.draw(st.sampled_from(distribution.choices))
        elif isinstance(distribution, IntDistribution):
            steps = (distribution.high - distribution.low) // distribution.step
            k = data.draw(st.integers(0, steps))
            parameters[name] = distribution.low + k * distribution.step
        else:
            assert isinstance(distribution, FloatDistribution)
            parameters[name] = data.draw(st.floats(distribution.low, distribution.high))
            if distribution.step:
                steps = round((distribution.high - distribution.low) / distribution.step)
                parameters[name] = distribution.low + distribution.step * round(
                    (parameters[name] - distribution.low) / distribution.step
                )
    configuration = space.configuration(parameters)
    values = configuration.knobs()
    assert values["max_num_seqs"] in (8, 16, 32, 64)
    assert values["power_limit_w"] in (300, 400, 500, 600, 700)
    assert set(configuration.load) == {"request_rate"}
    back = space.baseline_parameters(values)
    backend = {"VLLM_ATTENTION_BACKEND": values["VLLM_ATTENTION_BACKEND"]}  # has its own default
    assert space.configuration({**back, **backend}) == configuration


def test_grid_values_carry_no_binary_dust(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, SPACE))
    parameters = space.baseline_parameters(DEFAULTS)
    configuration = space.configuration({**parameters, "gpu_memory_utilization": 0.7 + 3 * 0.05})
    assert configuration.flags["gpu_memory_utilization"] == 0.85


def test_the_baseline_takes_own_defaults_first_and_must_lie_inside(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, SPACE))
    parameters = space.baseline_parameters({**DEFAULTS, "VLLM_ATTENTION_BACKEND": "FLASHINFER"})
    assert parameters["log2_max_num_seqs"] == 6
    assert parameters["VLLM_ATTENTION_BACKEND"] == "FLASH_ATTN"
    with pytest.raises(UsageError, match=r"max_num_seqs.default: found 1024, outside"):
        space.baseline_parameters({**DEFAULTS, "max_num_seqs": 1024})
    with pytest.raises(UsageError, match=r"'power_limit_w' is not known here"):
        space.baseline_parameters({k: v for k, v in DEFAULTS.items() if k != "power_limit_w"})
    load = "name: load\nload: {concurrency: {type: power_of_two, low: 1, high: 256}}\n"
    with pytest.raises(UsageError, match=r"the first trial has, or give --concurrency$"):
        load_space(write(tmp_path, load)).baseline_parameters({})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\n", "there is no knob"),
        ("name: A b\nload: {concurrency: {type: int, low: 1, high: 2}}\n", "name: found 'A b'"),
        ("name: a\ndevice: {power_limt_w: {type: int, low: 1, high: 2}}\n", "'power_limit_w'"),
        ("name: a\nload: {rate: {type: int, low: 1, high: 2}}\n", "unknown knob 'rate'"),
        (
            "name: a\nflags: {x: {type: int, low: 5, high: 2}}\n",
            "low (5) must be less than high (2)",
        ),
        (f"name: a\nflags: {{x: {{type: int, low: 1{400 * '0'}, high: 2}}}}\n", "between -2**63"),
        ("name: a\nflags: {x: {type: power_of_two, low: 3, high: 8}}\n", "3, which is not a power"),
        ("name: a\nflags: {x: {type: int, low: 0, high: 5, step: 2}}\n", "a multiple of step"),
        ("name: a\nflags: {x: {type: float, low: 0, high: 1, log: true}}\n", "log needs low > 0"),
        ("name: a\nflags: {x: {type: choice, choices: [a, a]}}\n", "choices must differ"),
        ("name: a\nflags: {x: {type: ints, low: 0, high: 5}}\n", "flags.x: found"),
        ("name: a\nfixed: {flags: {x: 1}}\nflags: {x: {type: int, low: 0, high: 5}}\n", "twice: x"),
        ("name: a\nfixed: {environment: {HF_TOKEN: x}}\n", "HF_TOKEN looks like a secret"),
        ("name: a\nflags: {x: {type: float, low: .nan, high: 5}}\n", "low: found nan"),
    ],
)
def test_errors_name_field_found_and_allowed(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_space(path)
    assert path in str(caught.value)
    assert says in str(caught.value)


def test_the_hash_sees_ranges_but_not_descriptions(tmp_path: Path) -> None:
    first = load_space(write(tmp_path, SPACE)).sha256()
    assert load_space(write(tmp_path, SPACE + "description: changed\n")).sha256() == first
    assert load_space(write(tmp_path, SPACE.replace("high: 64", "high: 128"))).sha256() != first


def flags_space(**knobs: dict[str, object]) -> SearchSpace:
    return SearchSpace.model_validate({"name": "kinds", "flags": knobs})


SEQS: dict[str, object] = {"type": "power_of_two", "low": 1, "high": 64}


def test_a_knob_knows_what_it_takes_to_change_it() -> None:
    space = SearchSpace.model_validate(
        {
            "name": "kinds",
            "flags": {
                "max_num_seqs": SEQS,
                "max_num_batched_tokens": {"type": "choice", "choices": [512, 1024]},
                "gpu_memory_utilization": {"type": "float", "low": 0.5, "high": 0.9},
            },
            "environment": {"A": {"type": "int", "low": 1, "high": 2}},
            "device": {"power_limit_w": {"type": "int", "low": 200, "high": 700}},
            "load": {"concurrency": {"type": "int", "low": 1, "high": 9}},
        }
    )
    assert {name: space.kind(name) for _, name, _ in space.knobs()} == {
        "max_num_seqs": "live",
        "max_num_batched_tokens": "launch",  # a list has no largest value to launch with
        "gpu_memory_utilization": "launch",
        "A": "launch",
        "power_limit_w": "device",
        "concurrency": "load",
    }
    with pytest.raises(KeyError):
        space.kind("block_size")


def test_a_live_knob_can_be_made_one_that_launches_and_is_another_space_then() -> None:
    plain, restarted = (
        flags_space(max_num_seqs=SEQS),
        flags_space(max_num_seqs={**SEQS, "kind": "launch"}),
    )
    assert (plain.kind("max_num_seqs"), restarted.kind("max_num_seqs")) == ("live", "launch")
    assert plain.sha256() != restarted.sha256()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            {"flags": {"block_size": {**SEQS, "kind": "live"}}},
            "block_size: cannot be changed in a running vLLM",
        ),
        (
            {"load": {"concurrency": {**SEQS, "kind": "launch"}}},
            "concurrency: kind is for flags; leave it out",
        ),
        ({"flags": {"max_num_seqs": {**SEQS, "kind": "device"}}}, "'launch' or 'live'"),
    ],
)
def test_a_kind_that_cannot_be_is_told(data: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        SearchSpace.model_validate({"name": "kinds", **data})
