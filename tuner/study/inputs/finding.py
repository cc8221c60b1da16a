"""Find what a stored study reads: the files where they were, else those kept in its store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tuner.catalog.yaml_files import joined_names
from tuner.errors import PreflightError, UsageError
from tuner.host.durable_files import replacing
from tuner.host.files.private import private_folder
from tuner.load.workload import Workload, load_workload
from tuner.spec.device_ranges import ranges_for
from tuner.spec.search_space import SearchSpace, load_space
from tuner.spec.study import StudySpec
from tuner.store import StudyIdentity
from tuner.store.inputs.study_files import StudyFile
from tuner.study.inputs.keeping import (
    GPU_FIELDS,
    MODEL_FILES,
    QUALITY,
    SPACE,
    TRACE,
    WORKLOAD,
    gpu_file,
)


@dataclass(frozen=True, slots=True)
class FoundInputs:
    """A study's spec with paths that exist, its search space and workload; `notes` for people."""

    spec: StudySpec
    space: SearchSpace
    workload: Workload
    notes: tuple[str, ...]


class InputFinder:
    """Finds the inputs of one stored study; what it takes from the store, it writes to `folder`.

    A file that is where it was is read there, even if it has changed: the resume then refuses it by
    its name. Raises `UsageError` for a file that is neither there nor in the store.
    """

    def __init__(self, study: StudyIdentity, kept: Mapping[str, StudyFile], folder: Path) -> None:
        self._study = study
        self._kept = kept
        self._folder = folder
        self._notes: list[str] = []

    def find(self, spec: StudySpec) -> FoundInputs:
        """Return the inputs of the study, whose stored spec is `spec`."""
        spec = spec.model_copy(update=dict(self._moved(spec)))
        return FoundInputs(spec, self._space(spec), self._workload(spec), tuple(self._notes))

    def _moved(self, spec: StudySpec) -> dict[str, Any]:
        """Return the fields of a spec whose file is gone, with that of the store instead."""
        found: dict[str, Any] = {}
        if spec.quality is not None and self._is_lost(QUALITY, Path(spec.quality)):
            found[QUALITY] = str(self._written(QUALITY, spec.quality))
        for field in GPU_FIELDS:
            name = getattr(spec, field)
            path = gpu_file(name)
            if path is not None and self._is_lost(field, path):
                card = name.removeprefix(str(path))
                found[field] = f"{self._written(field, str(path))}{card}"
        config = MODEL_FILES[0]
        if config in self._kept and not Path(spec.model).is_dir():
            self._note(spec.model)
            for name in MODEL_FILES:
                if name in self._kept:
                    self._write(name, "model")
            found["model"] = str(self._folder / "model")
        return found

    def _space(self, spec: StudySpec) -> SearchSpace:
        try:
            space = load_space(spec.space, partial(ranges_for, spec))
        except UsageError:
            if SPACE not in self._kept or _are_all_files(spec.space):
                raise
        else:
            is_as_it_was = space.sha256() == self._study.space_sha256
            if is_as_it_was or SPACE not in self._kept or _has_files(spec.space):
                return space
        return load_space(str(self._written(SPACE, spec.space)))

    def _workload(self, spec: StudySpec) -> Workload:
        try:
            workload = load_workload(spec.workload)
        except UsageError:
            if WORKLOAD not in self._kept or self._is_complete(spec.workload):
                raise
        else:
            is_as_it_was = workload.sha256 == self._study.workload_sha256
            if is_as_it_was or WORKLOAD not in self._kept or _has_files(spec.workload):
                return workload
        path = self._written(WORKLOAD, spec.workload)
        if TRACE in self._kept:
            self._write(TRACE, WORKLOAD)
        return load_workload(str(path))

    def _is_complete(self, workload: str) -> bool:
        """Whether a workload's file and its trace are there."""
        trace = self._kept.get(TRACE)
        path = Path(workload)
        return path.is_file() and (trace is None or (path.parent / trace.name).is_file())

    def _is_lost(self, role: str, path: Path) -> bool:
        return role in self._kept and not path.is_file()

    def _written(self, role: str, was: str) -> Path:
        self._note(was)
        return self._write(role, role)

    def _note(self, was: str) -> None:
        self._notes.append(
            f"{was} is not here as it was; study '{self._study.name}' goes on with what its store "
            "kept of it"
        )

    def _write(self, role: str, folder: str) -> Path:
        """Write a file of the store into a folder of this study's; return its path."""
        kept = self._kept[role]
        path = self._folder / folder / kept.name
        if Path(kept.name).name != kept.name:
            raise PreflightError(
                f"the store names a file '{kept.name}', which no tuner wrote; do not use this store"
            )
        try:
            private_folder(path.parent)
            with replacing(path, 0o600) as file:
                file.write(kept.content)
        except OSError as error:
            raise PreflightError(
                f"cannot write '{path}' ({error.strerror}); make its folder writable"
            ) from None
        return path


def _has_files(name: str) -> bool:
    """Whether a name is that of a user's file, or joins one; else all are shipped."""
    return any(part.endswith((".yaml", ".yml")) for part in joined_names(name))


def _are_all_files(name: str) -> bool:
    """Whether all files of a name are there: what is wrong is what stands in them."""
    return all(Path(part).is_file() for part in joined_names(name))
