from pathlib import Path

import pytest

from tuner.errors import UsageError
from tuner.records import Load
from tuner.slo import Slo
from tuner.spec.study import StudySpec, spec_from


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def test_a_file_and_options_merge_and_options_win(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\ntrials: 5\nslo: ['p99_tpot_ms<=50']\nconcurrency: 4\n")
    spec = spec_from(path, {"trials": 7, "seed": None, "slo": None})
    assert (spec.trials, spec.seed, spec.slos) == (7, 0, (Slo("p99_tpot_ms", 50.0),))
    assert spec.load == Load(concurrency=4)
    assert [o.text for o in spec.objectives] == ["energy_per_output_token_j", "p99_tpot_ms"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"trials": 3}, "no model"),
        ({"model": "m"}, "no budget"),
        ({"model": "m", "trials": 0}, "trials: found 0"),
        ({"model": "m", "hours": -1.0}, "hours: found -1.0"),
        ({"model": "m", "trials": 1, "slo": ["p99_tpt_ms<=5"]}, "did you mean 'p99_tpot_ms'"),
        ({"model": "m", "trials": 1, "objective": ["engery"]}, "unknown metric"),
        ({"model": "m", "trials": 1, "slo": ["p99_tpot_ms<=5", "p99_tpot_ms<=6"]}, "twice"),
        ({"model": "m", "trials": 1, "request_rate": 1.0, "concurrency": 2}, "exclude each other"),
        ({"model": "m", "trials": 1, "base_url": "localhost:8000"}, "--base-url: found"),
        ({"model": "m", "trials": 1, "live": True}, "live is for the emulator"),
        ({"model": "m", "trials": 1, "window_s": 9.0, "max_window_s": 60.0}, "excludes max_window"),
        ({"model": "m", "trials": 1, "max_window_s": 10.0}, "less than min_window_s (20)"),
        ({"model": "m", "trials": 1, "window_s": 0.0}, "window_s: found 0"),
        ({"model": "m", "trials": 1, "precision": 0.0}, "--precision: found 0"),
        ({"model": "m", "trials": 1, "sampler": "best"}, "--sampler: found 'best'"),
        ({"model": "m", "trials": 1, "study": "../x"}, "--study: '../x' is no name; use letters"),
        ({"model": "m", "trials": 1, "base_url": "http://x", "emulate": "L4"}, "exclude"),
        ({"model": "m", "trials": 1, "base_url": "http://x", "fork_servers": True}, "launches"),
        ({"model": "m", "trials": 1, "emulate": "L4", "fork_servers": True}, "launches"),
    ],
)
def test_errors_say_what_was_found_and_what_is_allowed(
    options: dict[str, object], says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        spec_from(None, options)
    assert says in str(caught.value)


def test_an_option_beside_a_file_is_named_as_one(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\ntrials: many\nsearch: x\n")
    with pytest.raises(UsageError) as caught:
        spec_from(path, {"max_window_s": "long"})
    assert str(caught.value) == (
        "--max-window-s: found 'long', expected a number; "
        f"'{path}': trials: found 'many', expected a whole number; "
        "search: there is no such field; check its spelling"
    )


def test_a_misspelt_field_of_a_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\ntrails: 5\n")
    with pytest.raises(UsageError, match="trails: there is no such field") as caught:
        spec_from(path, {})
    assert str(path) in str(caught.value)


def test_a_spec_survives_json() -> None:
    spec = StudySpec(model="m", slo=("p99_tpot_ms<=50",), hours=1.5)
    assert StudySpec.model_validate(spec.model_dump(mode="json")) == spec


def test_a_window_adapts_unless_a_length_is_given(tmp_path: Path) -> None:
    options = {"model": "m", "trials": 1, "slo": ["p99_tpot_ms<=50", "goodput_req_s>=1"]}
    plan = spec_from(None, {**options, "precision": 0.03, "max_window_s": 90.0}).window_plan
    assert plan.precision is not None
    assert (plan.shortest_window_s, plan.longest_window_s) == (20.0, 90.0)
    assert plan.precision.energy_share == 0.03
    assert plan.precision.percentiles == ("p99_tpot_ms",)
    path = write(tmp_path, "model: m\ntrials: 1\nwindow_s: 10\n")
    spec = spec_from(path, {})
    assert spec.window_plan.precision is None
    assert spec.window_plan.longest_window_s == 10.0
    again = StudySpec.model_validate(spec.model_dump())  # what is stored, and resumed
    assert again.window_plan == spec.window_plan


def test_the_sampler_of_a_study_stored_by_an_older_version() -> None:
    old = {"model": "m", "workload": "chat", "trials": 3, "sampler": "auto"}
    assert StudySpec.model_validate(old).sampler == "gp"


def test_slos_and_objectives_are_stored_as_they_were_written() -> None:
    written = ["p99_tpot_ms <= 50.0", "goodput_req_s>=1.23456789"]
    spec = StudySpec.model_validate({"model": "m", "slo": written, "objective": ["mean_power_w"]})
    stored = spec.model_dump(mode="json")
    assert (stored["slo"], stored["objective"]) == (written, ["mean_power_w"])
    assert [slo.bound for slo in spec.slos] == [50.0, 1.23456789]
