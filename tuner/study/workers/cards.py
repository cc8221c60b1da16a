"""Cards of a study: which GPUs each worker has, real or emulated."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from tuner.catalog.gpu import load_gpu
from tuner.devices.open import open_meter
from tuner.errors import PreflightError, UsageError
from tuner.spec.study import StudySpec


@dataclass(frozen=True, slots=True)
class Card:
    """The GPUs of one worker.

    `name` is what the store calls them: the UUID of a real GPU, several joined by `+`, or
    `H100-SXM:3` for card 3 of an emulated host. `uuids` is empty for an emulated card.
    """

    name: str
    uuids: tuple[str, ...] = ()


def cards_of(spec: StudySpec) -> list[Card]:
    """Return a card for each worker that `--cards` asks for, none without it.

    Each has `--gpus` GPUs, or one. Raises `UsageError` for more than there are.
    """
    if spec.cards is None:
        return []
    each = spec.gpus or 1
    if spec.emulate is not None:
        gpu = load_gpu(spec.emulate, spec.engine)
        count = _count(spec, gpu.max_gpus // each)
        return [Card(f"{spec.emulate}:{number}") for number in range(count)]
    meter = open_meter()
    if meter is None:
        raise PreflightError(
            "--cards needs GPUs, and there is no NVML here; leave it out, or --emulate a GPU"
        )
    with closing(meter):
        uuids = [state.uuid for state in meter.states()]
    count = _count(spec, len(uuids) // each)
    groups = [tuple(uuids[k * each : (k + 1) * each]) for k in range(count)]
    return [Card("+".join(group), group) for group in groups]


def _count(spec: StudySpec, there: int) -> int:
    wanted = there if spec.cards == "all" else spec.cards
    assert isinstance(wanted, int)
    # any number of single cards can be emulated
    if spec.emulate is not None and spec.gpus in (None, 1):
        return wanted
    if wanted > there or there < 1:
        each = spec.gpus or 1
        raise UsageError(
            f"--cards {spec.cards}: there are {there} workers of {each} GPU{'s'[: each - 1]} here"
        )
    return wanted
