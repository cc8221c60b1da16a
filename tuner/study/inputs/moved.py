"""What is elsewhere when a study is resumed: the model's files, the vllm executable, the cards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.catalog.yaml_files import validate
from tuner.errors import UsageError
from tuner.spec.study import StudySpec

_THIS_HOST = "none"  # `--ray none`


@dataclass(frozen=True, slots=True)
class MovedTo:
    """New places of a stored study's model, executable and workers; None where they were.

    `cards`, `gpus` and `ray` are as in a spec; `ray` may be `none`, for this host.
    """

    model: str | None = None
    vllm: str | None = None
    cards: str | int | None = None
    gpus: str | int | None = None
    ray: str | None = None

    def applied_to(self, spec: StudySpec) -> StudySpec:
        """Return the spec with the new places.

        Raises `UsageError` for a model that is no folder, an emulated one that has no files, and
        for workers whose figures would not compare with those in the store.
        """
        changes: dict[str, Any] = {}
        if self.vllm is not None:
            changes["vllm"] = self.vllm
        if self.model is not None:
            folder = Path(self.model).expanduser().absolute()
            if not folder.is_dir():
                raise UsageError(
                    f"--model {self.model}: there is no such folder; give the one that holds the "
                    "model's files now"
                )
            if spec.emulate is not None and not Path(spec.model).is_absolute():
                raise UsageError(f"the emulated model {spec.model} has no files; leave --model out")
            changes["model"] = str(folder)
        return self._with_workers(spec.model_copy(update=changes))

    def _with_workers(self, spec: StudySpec) -> StudySpec:
        cards = "all" if self.gpus == "all" and self.cards is None else self.cards
        each = None if self.gpus in (None, "all") else str(self.gpus)
        if each is not None and each != str(spec.gpus or 1):
            raise UsageError(
                f"--gpus {self.gpus}: each server of this study has {spec.gpus or 1}, and with "
                "another number nothing compares; leave it out, or start a new study with "
                "--from-study"
            )
        if cards is None and self.ray is None:
            return spec
        if not spec.has_cards:
            raise UsageError(
                "this study was measured on one card, and its figures do not compare with other "
                "cards'; resume it without --cards and --ray, or start a new study from its points "
                "with `tuner run --from-study`"
            )
        ray = spec.ray if self.ray is None else self.ray
        ray = None if ray == _THIS_HOST else ray
        wanted = spec.cards if cards is None else cards
        wanted = "all" if wanted is None and ray is None else wanted
        return validate(
            "--cards and --ray", {**spec.model_dump(), "cards": wanted, "ray": ray}, StudySpec
        )


NOT_MOVED = MovedTo()
