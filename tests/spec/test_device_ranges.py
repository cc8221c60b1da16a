"""Shares of a card's range: what they stand for on each card."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.catalog.gpu import gpu_names, load_gpu
from tuner.errors import UsageError
from tuner.spec.device_ranges import DeviceRange, Share, ranges_of_devices, ranges_of_gpu
from tuner.spec.search_space import Integer, SearchSpace, load_space


def power_space(gpu: str) -> SearchSpace:
    return load_space("power", partial(ranges_of_gpu, load_gpu(gpu)))


@pytest.mark.parametrize("gpu", ["H100-SXM", "H200-SXM"])
def test_on_an_h100_the_grid_is_the_one_in_watts_and_mhz(gpu: str) -> None:
    device = power_space(gpu).device
    assert device == {
        "power_limit_w": Integer(type="int", low=200, high=700, step=25),
        "sm_clock_mhz": Integer(type="int", low=780, high=1980, step=60),
    }


def test_the_hash_is_that_of_the_space_in_watts() -> None:
    """So a study that was begun with absolute ranges is resumed with shares."""
    shares = power_space("H100-SXM")
    text = shares.model_dump(mode="json")
    text["device"] = {
        "power_limit_w": {"type": "int", "low": 200, "high": 700, "step": 25},
        "sm_clock_mhz": {"type": "int", "low": 780, "high": 1980, "step": 60},
    }
    assert SearchSpace.model_validate(text).sha256() == shares.sha256()


@pytest.mark.parametrize("name", gpu_names())
def test_every_gpu_takes_every_value_of_its_grid(name: str) -> None:
    gpu = load_gpu(name)
    power, clock = (power_space(name).device[k] for k in ("power_limit_w", "sm_clock_mhz"))
    assert isinstance(power, Integer) and isinstance(clock, Integer)
    assert gpu.min_limit_w <= power.low < power.high == gpu.max_limit_w
    assert gpu.min_clock_mhz <= clock.low < clock.high == gpu.max_clock_mhz
    assert clock.step % 15 == 0
    assert 10 <= (power.high - power.low) / power.step <= 25
    assert 10 <= (clock.high - clock.low) / clock.step <= 25


@given(
    low=st.floats(0.01, 0.9),
    steps=st.integers(1, 60),
    card_low=st.integers(0, 400),
    span=st.integers(30, 3000),
    unit=st.sampled_from([1, 5, 15]),
)
def test_a_grid_lies_within_the_card(
    low: float, steps: int, card_low: int, span: int, unit: int
) -> None:
    card = DeviceRange(card_low, card_low + span, unit)
    share = Share(type="share", low=low, high=1.0, steps=steps)
    knob = Integer.model_validate(share.on(card))
    assert card.low <= knob.low < knob.high == card.high
    assert knob.step % unit == 0


def test_absolute_values_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ndevice: {power_limit_w: {type: int, low: 210, high: 430}}\n")
    assert load_space(str(path)).device["power_limit_w"] == Integer(type="int", low=210, high=430)


@pytest.mark.parametrize(
    ("knob", "says"),
    [
        ("power_limit_w: {type: share, low: 0.9, high: 0.4}", "must be less than high"),
        ("power_limit_w: {type: share, low: 0.4, high: 1.4}", "high: found 1.4"),
        ("power_limit_w: {type: share, low: 0.4}", "high: this field is required"),
        ("power_limit: {type: share, low: 0.4, high: 1}", "power_limit_w"),
    ],
)
def test_what_is_wrong_with_a_share_is_said(tmp_path: Path, knob: str, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: mine\ndevice: {{{knob}}}\n")
    with pytest.raises(UsageError, match=says):
        load_space(str(path), partial(ranges_of_gpu, load_gpu("L4")))


def test_a_share_of_an_unknown_card_is_refused() -> None:
    with pytest.raises(UsageError, match="not known here"):
        load_space("power")
    with pytest.raises(UsageError, match="not known here"):
        load_space("power", partial(ranges_of_devices, ()))
