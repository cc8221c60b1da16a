"""Search space files: joined spaces, structured flags, relations, hashes of shipped ones."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.configuration import Configuration
from tuner.errors import UsageError
from tuner.load.workload import load_workload
from tuner.spec.device_ranges import example_ranges
from tuner.spec.search_space import SearchSpace, load_space
from tuner.spec.study import spec_from
from tuner.study.proposals.start_points import parameters_of
from tuner.study.space_checks import check_space, check_workload

# A study resumes only with the same space: these may never change.
HASHES = {
    "default": "4730940953cad2a98a6d51c6206bf245be37455d2e6fda7cb18883631863a8a1",
    "power": "6316fb19a242c519cfb7c050d987e29c09122972a6c582e186addcaf4500419d",
    "load": "b0c1c1d0ffe92db1b913860baeaa300a8544d1a2ef26b3749e5adc10d7fb02bf",
    "cpu-smoke": "4bad6f0683667c84becefaf584946e545d2b73af6c3a1f24a95ff27918e30c40",
}

SPACE = """
name: mine
flags:
  kv_cache_dtype: {type: choice, choices: [unset, fp8]}
  tensor_parallel_size: {type: power_of_two, low: 1, high: 8}
  data_parallel_size: {type: choice, choices: [unset, 2, 4]}
  speculative_config:
    type: variants
    variants:
      none: {}
      ngram:
        method: ngram
        num_speculative_tokens: {type: int, low: 1, high: 8}
      suffix:
        method: suffix
        num_speculative_tokens: {type: power_of_two, low: 4, high: 32}
relations:
  - tensor_parallel_size * data_parallel_size <= gpus
  - speculative_config.num_speculative_tokens <= 4 or tensor_parallel_size == 1
"""


def space(tmp_path: Path, text: str = SPACE, name: str = "mine") -> SearchSpace:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return load_space(str(path))


@pytest.mark.parametrize("name", HASHES)
def test_a_study_of_a_shipped_space_can_be_resumed(name: str) -> None:
    assert load_space(name, example_ranges).sha256() == HASHES[name]


@given(data=st.data())
def test_every_point_is_a_configuration_and_back(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mine = space(tmp_path_factory.mktemp("space"))
    drawn = {
        one.name: one.knob.encode(data.draw(st.sampled_from(one.knob.values())))
        for one in mine.parameters
    }
    configuration = mine.configuration(drawn)
    assert parameters_of(mine, configuration, {}) == mine.active(drawn)
    assert "unset" not in configuration.knobs().values()
    fields = [name for name in configuration.flags if name.startswith("speculative_config")]
    assert len(fields) == (0 if drawn["speculative_config"] == "none" else 2)


def test_the_baseline_leaves_all_unset(tmp_path: Path) -> None:
    mine = space(tmp_path)
    parameters = mine.baseline_parameters({"tensor_parallel_size": 1})
    assert parameters == {
        "kv_cache_dtype": "unset",
        "log2_tensor_parallel_size": 0,
        "data_parallel_size": "unset",
        "speculative_config": "none",
    }
    own = Configuration({"speculative_config.method": "eagle"})
    with pytest.raises(UsageError, match="the baseline is method=eagle, which no variant can be"):
        mine.baseline_parameters({"tensor_parallel_size": 1}, own)


def test_relations_read_fields_and_known_defaults(tmp_path: Path) -> None:
    mine = space(tmp_path)
    point = {
        "kv_cache_dtype": "unset",
        "log2_tensor_parallel_size": 3,
        "data_parallel_size": "unset",
        "speculative_config": "none",
    }
    assert mine.broken_relation(point, 8) is None
    assert mine.broken_relation(point, None) is None
    assert mine.broken_relation({**point, "data_parallel_size": 2}, 8) == mine.relations[0]
    assert mine.broken_relation(point, 4) == mine.relations[0]
    deep = {"speculative_config": "ngram", "speculative_config.ngram.num_speculative_tokens": 5}
    assert mine.broken_relation({**point, **deep}, 8) == mine.relations[1]


def test_spaces_are_joined() -> None:
    joined = load_space("default+precision")
    assert joined.name == "default+precision"
    assert set(joined.flags) == {*load_space("default").flags, *load_space("precision").flags}
    both = load_space("default+power", example_ranges)  # their common knobs are the same
    assert set(both.device) == {"power_limit_w", "sm_clock_mhz"}


def test_a_knob_that_differs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("name: other\nflags: {max_num_seqs: {type: int, low: 1, high: 9}}\n")
    with pytest.raises(UsageError, match=r"flags\.max_num_seqs is another one"):
        load_space(f"default+{path}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SPACE.replace("<= gpus", "<= gpu"), "did you mean 'gpus'"),
        (SPACE.replace("none: {}", "none: {}\n      nothing: {}"), "both leave the flag unset"),
        (SPACE.replace("flags:\n", "environment:\n"), "variants are for structured flags"),
        (SPACE.replace("- tensor", "- __import__('os') == tensor"), "not allowed in a relation"),
        (SPACE.replace("low: 1, high: 8}\n      suffix", "low: 9, high: 8}\n      suffix"), "low"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        space(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_what_changes_answers_and_what_leaves_nothing_is_refused(tmp_path: Path) -> None:
    spec = spec_from(None, {"model": "m", "trials": 1, "allow_output_changes": True})
    asked = spec.model_copy(update={"allow_output_changes": False})
    mine = space(tmp_path)
    check_space(mine, spec, 8)
    with pytest.raises(UsageError, match="kv_cache_dtype may change the model's answers"):
        check_space(mine, asked, 8)
    empty = space(tmp_path, SPACE + "  - tensor_parallel_size * 3 == gpus\n", "empty")
    with pytest.raises(UsageError, match="no configuration keeps its relations"):
        check_space(empty, spec, 8)
    spec_of_eight = spec_from(
        None, {"model": "m", "trials": 1, "set": ["tensor_parallel_size=8"]}
    ).model_copy(update={"allow_output_changes": True})
    with pytest.raises(UsageError, match="the baseline takes 8 GPUs, and the study may use 4"):
        check_space(mine, spec_of_eight, 4)


def test_drafts_are_not_judged_by_random_tokens(tmp_path: Path) -> None:
    spec = spec_from(None, {"model": "m", "trials": 1})
    random = load_workload("chat")
    with pytest.raises(UsageError, match="random token ids, of which far more drafts are accepted"):
        check_workload(load_space("speculative"), spec, random)
    check_workload(load_space("default"), spec, random)
    emulated = spec.model_copy(update={"emulate": "H100-SXM"})  # which has the workload's own rate
    check_workload(load_space("speculative"), emulated, random)
    (tmp_path / "asked.jsonl").write_text('{"prompt": "Why?", "output_tokens": 9}\n')
    (tmp_path / "asked.yaml").write_text(
        "description: d\ntrace: {file: asked.jsonl}\nstop: natural\nload: {concurrency: 1}\n"
    )
    text = load_workload(str(tmp_path / "asked.yaml"))
    check_workload(load_space("speculative"), spec, text)
    assert next(text.requests()).stops
