"""What lies elsewhere when a study is resumed: the model's files, and the vllm executable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.errors import UsageError
from tuner.spec.study import StudySpec


@dataclass(frozen=True, slots=True)
class MovedTo:
    """New places of a stored study's model and executable; None where they were."""

    model: str | None = None
    vllm: str | None = None

    def applied_to(self, spec: StudySpec) -> StudySpec:
        """Return the spec with the new places.

        Raises `UsageError` for a model that is no folder, or an emulated one that has no files.
        """
        changes: dict[str, str] = {}
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
        return spec.model_copy(update=changes)


NOT_MOVED = MovedTo()
