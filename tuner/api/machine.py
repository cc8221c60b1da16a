"""This machine: whether a study can run on it, its GPUs' limits, and their calibration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tuner import DEFAULT_STORE
from tuner.host.finding import Finding

if TYPE_CHECKING:
    from tuner.devices.leases.restoring import RestoreOutcome
    from tuner.report.terminal.gpu_table import MachineStatus
    from tuner.study.calibrate_gpu import CalibratedGpu

__all__ = [
    "CalibratedGpu",
    "calibrate",
    "examine",
    "gpu_status",
    "prevents_a_run",
    "restore_gpus",
]


def examine(
    store: str = DEFAULT_STORE, *, vllm: str | None = None, port: int | None = None
) -> list[Finding]:
    """Check what a study needs here; changes nothing. `vllm` is the executable."""
    from tuner.doctor.examine import Question
    from tuner.doctor.examine import examine as examine_machine

    return examine_machine(Question(store, vllm, port, os.environ))


def prevents_a_run(findings: list[Finding]) -> list[Finding]:
    """Return the findings with which a study cannot run."""
    from tuner.doctor.examine import prevents_a_run as problems

    return problems(findings)


def gpu_status() -> MachineStatus:
    """Return each GPU's power limit and clocks: before the tuner changed them, and now."""
    from tuner.devices.leases.lease_book import LeaseBook
    from tuner.devices.open import isolated_limits
    from tuner.host.state_folder import state_folders
    from tuner.report.terminal.gpu_table import machine_status

    return machine_status(isolated_limits(), *map(LeaseBook, state_folders()))


def restore_gpus(*, force: bool = False) -> list[RestoreOutcome]:
    """Restore the limits that a crash left changed; `force` also those of runs that are alive."""
    from tuner.devices.leases.lease_book import LeaseBook
    from tuner.devices.limit_control import Access
    from tuner.devices.open import opened_limits
    from tuner.host.state_folder import state_folders

    opener = partial(opened_limits, Access.SET)
    books = map(LeaseBook, state_folders())
    return [outcome for book in books for outcome in book.restore_all(opener, force=force)]


def calibrate(
    studies: Sequence[str], gpu: str, output: Path, store: str = DEFAULT_STORE
) -> CalibratedGpu:
    """Correct an emulated GPU by real studies (all in the store if none), in a new YAML file."""
    from tuner.study.calibrate_gpu import calibrate_gpu

    return calibrate_gpu(studies, gpu, output, store)
