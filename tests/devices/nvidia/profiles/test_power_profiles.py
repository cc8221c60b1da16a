"""Workload power profiles of a (stand-in) GPU: set under a lease, read back, put back exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.nvml_standin import Standin
from helpers.nvml_standin.standin import NO_PERMISSION

from tuner.configuration import Configuration
from tuner.devices.leases.lease_book import LeaseBook, leased
from tuner.devices.leases.restoring import RestoreAction
from tuner.devices.limit_control import Access, LimitControl, PermissionDeniedError
from tuner.devices.open import inspect_device, open_limits, open_meter, opened_limits
from tuner.errors import OperatorNeededError, PreflightError, UsageError
from tuner.evaluation.device_knobs import DeviceKnobs
from tuner.host.process import this_owner

MAX_Q, LLM, INFERENCE = 1 << 1, 1 << 6, 1 << 21


@pytest.fixture
def limits(standin: Standin) -> Iterator[LimitControl]:
    standin.device(0).set(profiles_mask=MAX_Q | LLM | INFERENCE, requested_mask=INFERENCE)
    control = open_limits(Access.SET)
    assert control is not None
    yield control
    control.close()


def requested(standin: Standin) -> int:
    return int(standin.device(0).get("requested_mask"))


def test_what_the_card_has_is_asked_of_it(standin: Standin, limits: LimitControl) -> None:
    found = limits.power_profiles(standin.device(0).uuid)
    assert found is not None
    assert found.available == ("max_q", "llm_inference", "inference")
    assert found.requested == found.enforced == ("inference",)
    assert limits.power_profiles(standin.device(1).uuid) is None
    seen = inspect_device(standin.device(0).uuid)
    assert seen is not None and seen.power_profiles == found.available


def test_exactly_these_are_requested_and_read_back(standin: Standin, limits: LimitControl) -> None:
    uuid = standin.device(0).uuid
    limits.set_power_profiles(uuid, ("max_q",))
    assert requested(standin) == MAX_Q
    with pytest.raises(UsageError, match=r"power_profile=compute: .* has max_q, llm_inference"):
        limits.set_power_profiles(uuid, ("compute",))
    standin.device(0).set(blocked_mask=LLM)  # another one has priority
    with pytest.raises(OperatorNeededError, match="does something else on this machine"):
        limits.set_power_profiles(uuid, ("llm_inference",))
    standin.device(0).fail("nvmlDeviceWorkloadPowerProfileSetRequestedProfiles", NO_PERMISSION)
    with pytest.raises(PermissionDeniedError):
        limits.set_power_profiles(uuid, ("inference",))


def test_a_lease_puts_back_what_it_found(
    standin: Standin, limits: LimitControl, tmp_path: Path
) -> None:
    book = LeaseBook(tmp_path)
    with leased(limits, [standin.device(0).uuid], "run", book) as gpus:
        gpus.apply(power_profiles=("max_q",))
        gpus.apply(power_profiles=("llm_inference",))
        assert requested(standin) == LLM
        gpus.apply()
        assert requested(standin) == INFERENCE
        gpus.apply(power_profiles=())
        assert requested(standin) == 0
    assert requested(standin) == INFERENCE
    assert book.entries() == ()


def test_a_dead_run_is_put_back_from_its_file(
    standin: Standin, limits: LimitControl, tmp_path: Path
) -> None:
    book, uuid, me = LeaseBook(tmp_path), standin.device(0).uuid, this_owner("run")
    lease = book.take(limits, uuid, me)
    book.set_limits(limits, lease, power_limit_w=None, sm_clock_mhz=None, power_profiles=("max_q",))
    file = next(tmp_path.glob("*.json"))
    file.write_text(file.read_text().replace(f'"pid": {me.pid}', '"pid": 4194303'))
    assert requested(standin) == MAX_Q
    (outcome,) = book.restore_all(lambda one: opened_limits(Access.SET, one))
    assert outcome.action is RestoreAction.RESTORED, outcome
    assert "power profiles inference" in outcome.message
    assert requested(standin) == INFERENCE


def test_a_study_sets_one_for_each_configuration(
    standin: Standin, limits: LimitControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_STATE_DIR", str(tmp_path))
    extremes = [Configuration(device={"power_profile": name}) for name in ("max_q", "inference")]
    knobs = DeviceKnobs("run", extremes)
    meter = open_meter(1)
    assert meter is not None
    knobs.open(meter.states())
    meter.close()
    assert requested(standin) == 0  # the baseline: none is asked for
    knobs.apply(extremes[0])
    assert requested(standin) == MAX_Q
    knobs.close()
    assert requested(standin) == INFERENCE


def test_a_card_without_profiles_is_left_alone(
    standin: Standin, limits: LimitControl, tmp_path: Path
) -> None:
    book, uuid = LeaseBook(tmp_path), standin.device(1).uuid
    with leased(limits, [uuid], "run", book) as gpus:
        gpus.apply(power_limit_w=400)
        with pytest.raises(PreflightError, match="has no workload power profiles"):
            gpus.apply(power_profiles=("max_q",))
