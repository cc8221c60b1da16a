"""Keep in the store what a study reads from files: `tuner resume` then needs the store alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from tuner.catalog.yaml_files import find_yaml, read_mapping, read_yaml
from tuner.errors import UsageError
from tuner.load.workload import WorkloadSpec
from tuner.spec.search_space import SearchSpace
from tuner.spec.study import StudySpec
from tuner.store.inputs.study_files import MOST_BYTES, StudyFile

SPACE, WORKLOAD, TRACE, QUALITY = "space", "workload", "trace", "quality"
GPU_FIELDS = ("emulate", "energy_gpu")
MODEL_FILES = ("config.json", "hf_quant_config.json")  # all that the emulator reads of a model


def files_to_keep(spec: StudySpec, space: SearchSpace) -> list[StudyFile]:
    """Return the files of a study; the search space as it was resolved, with joins and shares.

    Raises `UsageError` for one that cannot be read or is too large.
    """
    return list(_files(spec, space))


def _files(spec: StudySpec, space: SearchSpace) -> Iterator[StudyFile]:
    written = yaml.safe_dump(space.model_dump(mode="json", exclude_none=True), sort_keys=False)
    yield StudyFile(SPACE, "space.yaml", written.encode())
    workload = find_yaml("workloads", spec.workload)
    beside = _beside(read_yaml(workload, WorkloadSpec))
    if beside is None:
        yield _read(WORKLOAD, workload)
    else:  # wherever it is, it is put beside the workload
        part, field, name = beside
        file = _read(TRACE, workload.parent / name)
        data = read_mapping(workload)
        data[part] = {**data[part], field: file.name}
        yield StudyFile(WORKLOAD, workload.name, yaml.safe_dump(data, sort_keys=False).encode())
        yield file
    if spec.quality is not None:
        yield _read(QUALITY, Path(spec.quality))
    for field in GPU_FIELDS:
        path = gpu_file(getattr(spec, field))
        if path is not None:
            yield _read(field, path)
    if spec.emulate is not None:
        for name in MODEL_FILES:
            if (path := Path(spec.model) / name).is_file():
                yield _read(name, path)


def _beside(spec: WorkloadSpec) -> tuple[str, str, str] | None:
    """Return where a workload names the file beside it, a trace or prompts, and that name."""
    if spec.trace is not None:
        return ("trace", "file", spec.trace.file)
    if spec.generation is not None and spec.generation.prompts is not None:
        return ("generation", "prompts", spec.generation.prompts)
    return None


def gpu_file(name: str | None) -> Path | None:
    """Return the file of a GPU; None for a shipped one. `FILE.yaml:3` is its card 3."""
    if name is None:
        return None
    kind, _, number = name.rpartition(":")
    path = Path(kind if kind and number.isdecimal() else name)
    return path if path.suffix in (".yaml", ".yml") else None


def _read(role: str, path: Path) -> StudyFile:
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise UsageError(f"cannot read '{path}' ({error.strerror}); make it readable") from None
    if size > MOST_BYTES:
        raise UsageError(
            f"'{path}' has {size / 2**20:.0f} MB, which the store cannot hold (at most "
            f"{MOST_BYTES / 2**20:.0f}); import fewer requests with `tuner workload import --limit`"
        )
    return StudyFile(role, path.name, content)
