"""What `tuner run` does to a (stand-in) GPU where it may not, or shall not, change it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.standin_study import FOUND_W, StandinStudy, standin_study
from helpers.studies import InProcess

from tuner.devices.leases.lease_book import LeaseBook
from tuner.devices.limit_control import Access
from tuner.devices.open import opened_limits
from tuner.errors import UsageError
from tuner.host.process import this_owner
from tuner.spec.study import StudySpec, spec_from
from tuner.study import default_space as module
from tuner.study.default_space import default_space


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandinStudy]:
    with standin_study(tmp_path) as made:
        for name, value in made.tuner.environment.items():
            monkeypatch.setenv(name, value)
        yield made


def run(study: StandinStudy, *more: str) -> tuple[int, str]:
    tuner = InProcess(study.tuner.folder)  # no new interpreter: none of these is killed
    done = tuner(*study.run_words("--trials", "1", "--no-confirm", *more))
    return done.returncode, " ".join(done.stderr.split())


def test_device_knobs_that_are_asked_for_are_refused_with_the_option_that_allows_them(
    study: StandinStudy,
) -> None:
    code, errors = run(study, *study.space())
    assert (code, study.settings()) == (3, 0)
    assert "allow it with --allow-gpu-settings" in errors


def test_read_only_refuses_device_knobs_and_the_option_that_contradicts_it(
    study: StandinStudy,
) -> None:
    code, errors = run(study, *study.space(), "--read-only-device")
    assert code == 2
    assert "--read-only-device forbids" in errors
    code, errors = run(study, "--read-only-device", "--allow-gpu-settings")
    assert code == 2
    assert "exclude each other" in errors
    assert study.settings() == 0


def test_a_read_only_run_mends_nothing_and_says_so(study: StandinStudy) -> None:
    crashed(study)
    before = study.settings()
    code, errors = run(study, "--read-only-device")
    assert code == 5
    assert "opened read-only" in errors and "tuner gpu restore" in errors
    assert study.settings() == before
    assert study.standin.device(0).limit_w == 300


def crashed(study: StandinStudy) -> None:
    """Leave the GPU as a run that was killed with its guardian does."""
    device = study.standin.device(0)
    book = LeaseBook(study.state)
    with opened_limits(Access.SET) as control:
        assert control is not None
        lease = book.take(control, device.uuid, replace(this_owner("crashed"), start_ticks=1))
        book.set_limits(control, lease, power_limit_w=300, sm_clock_mhz=None)


def test_read_only_is_kept_with_the_study() -> None:
    spec = spec_from(None, {"model": "m", "trials": 1, "read_only_device": True})
    assert spec.access is Access.READ
    assert spec_from(None, {"model": "m", "trials": 1}).access is Access.SET
    stored = spec.model_dump(mode="json")  # as a study keeps it
    assert StudySpec.model_validate(stored).access is Access.READ
    with pytest.raises(UsageError, match="exclude each other"):
        spec_from(
            None,
            {"model": "m", "trials": 1, "read_only_device": True, "allow_gpu_settings": True},
        )


def test_without_a_space_the_knobs_are_searched_where_that_is_permitted(
    study: StandinStudy,
) -> None:
    chosen = default_space(allowed=True)
    assert chosen.name == "power"
    assert study.is_as_found()
    assert study.left() == []


def test_without_permission_the_default_space_has_no_device_knobs_and_that_is_said(
    study: StandinStudy,
) -> None:
    study.standin.device(0).deny_setting()
    chosen = default_space(allowed=True)
    assert chosen.name == "default"
    assert chosen.reason is not None
    assert "not searched" in chosen.reason and "sudo" in chosen.reason
    assert study.left() == []


def test_a_gpu_with_another_range_is_searched_within_its_own(study: StandinStudy) -> None:
    """The space's range is a share of the card's own: 200 to 650 W here."""
    study.standin.device(0).set(max_mw=650_000)
    chosen = default_space(allowed=True)
    assert chosen.name == "power"
    assert study.is_as_found()


def test_not_allowed_nothing_is_set_and_the_option_is_named(study: StandinStudy) -> None:
    chosen = default_space(allowed=False)
    assert chosen.name == "default"
    assert chosen.reason is not None and "--allow-gpu-settings" in chosen.reason
    assert study.settings() == 0


def test_without_nvml_there_is_nothing_to_say(
    study: StandinStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NVML_STANDIN_STATE")
    assert default_space(allowed=True) == module.ChosenSpace("default", None)


def test_a_run_without_a_space_says_once_that_the_knobs_are_dropped(study: StandinStudy) -> None:
    device = study.standin.device(0)
    device.deny_setting()
    code, errors = run(study, "--allow-gpu-settings")
    assert errors.count("are not searched") == 1
    assert "run as root" in errors
    assert code != 3, errors
    assert study.has_launched()
    assert device.limit_w == FOUND_W
    assert study.left() == []
