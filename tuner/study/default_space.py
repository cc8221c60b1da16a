"""The default search space of a study on real GPUs.

With `--allow-gpu-settings` it includes the GPU's own knobs if this machine can set them. Otherwise
they are left out, and the user is told why once.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from tuner.configuration import Configuration
from tuner.devices.device_state import DeviceState
from tuner.devices.leases.lease_book import LeaseBook, leased
from tuner.devices.limit_control import Access, LimitControl
from tuner.devices.open import open_meter, opened_limits
from tuner.errors import PreflightError, UsageError
from tuner.evaluation.device_knobs import require_in_range
from tuner.evaluation.factory import space_knobs
from tuner.host.state_folder import state_folder
from tuner.spec.device_ranges import example_ranges, ranges_of_devices
from tuner.spec.search_space import load_space
from tuner.spec.study import StudySpec

_WITHOUT_DEVICE_KNOBS = "default"
_WITH_DEVICE_KNOBS = "power"


@dataclass(frozen=True, slots=True)
class ChosenSpace:
    """A shipped search space; `reason` explains the choice to the user, or is None."""

    name: str
    reason: str | None


def default_space(*, allowed: bool) -> ChosenSpace:
    """Choose the space; `allowed`: the user permits changes to settings of real GPUs.

    Raises `PreflightError` if another run has leased the GPUs, `OperatorNeededError` if a GPU does
    not answer.
    """
    meter = open_meter()
    if meter is None:
        return ChosenSpace(_WITHOUT_DEVICE_KNOBS, None)
    with closing(meter):
        gpus = meter.states()
    if not allowed:
        return ChosenSpace(
            _WITHOUT_DEVICE_KNOBS,
            "power limit and SM clock of the GPU are left alone and not searched; "
            "--allow-gpu-settings searches them too (needs root)",
        )
    # a range that a GPU does not report is an example's; `_obstacle` then says what is missing
    ranges = {**example_ranges(), **ranges_of_devices(gpus)}
    extremes = space_knobs(load_space(_WITH_DEVICE_KNOBS, lambda: ranges)).extremes
    obstacle = _obstacle(gpus, extremes)
    if obstacle is not None:
        return ChosenSpace(
            _WITHOUT_DEVICE_KNOBS,
            f"power limit and SM clock of the GPU are not searched: {obstacle}",
        )
    return ChosenSpace(
        _WITH_DEVICE_KNOBS, "power limit and SM clock of the GPU are searched too (--space power)"
    )


def named_space(spec: StudySpec) -> StudySpec:
    """Return the spec with the space that `default_space` would choose where all may be set.

    Nothing is tried on a GPU.
    """
    if "space" in spec.model_fields_set or spec.emulate is not None or spec.base_url is not None:
        return spec
    name = _WITH_DEVICE_KNOBS if spec.allow_gpu_settings else _WITHOUT_DEVICE_KNOBS
    return spec.model_copy(update={"space": name})


def _obstacle(gpus: Sequence[DeviceState], extremes: Sequence[Configuration]) -> str | None:
    """Return why the knobs cannot be set, or None if they can; changes no GPU."""
    with opened_limits(Access.SET) as control:
        if control is None:
            return "there is no NVML any more"
        tag = f"probe-{secrets.token_hex(4)}"
        with leased(control, [gpu.uuid for gpu in gpus], tag, LeaseBook(state_folder())):
            try:
                for gpu in gpus:
                    _require_settable(control, gpu, extremes)
            except (PreflightError, UsageError) as error:
                return str(error)
    return None


def _require_settable(
    control: LimitControl, gpu: DeviceState, extremes: Sequence[Configuration]
) -> None:
    for extreme in extremes:
        require_in_range(gpu, extreme.device)
    found_w = control.state(gpu.uuid).power_limit_w
    if found_w is None:
        raise PreflightError(f"the power limit of {gpu.name} cannot be read")
    control.set_power_limit(gpu.uuid, found_w)  # its present value: tests the permission
