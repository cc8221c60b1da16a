"""Study identity: the hardware, software and spec of a study, compared when it is resumed."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuner.configuration import Configuration
from tuner.errors import PreflightError
from tuner.evaluation.evaluator import Testbed
from tuner.evaluation.factory import fixed_configuration
from tuner.load.workload import Workload
from tuner.spec.search_space import SearchSpace
from tuner.spec.stored import Capacity, StoredSpec
from tuner.spec.study import StudySpec
from tuner.store import StudyIdentity
from tuner.study.inputs.keeping import MODEL_FILES

_SAME = {
    "model": "the model",
    "model_revision": "the model's files",
    "workload_sha256": "the workload",
    "space_sha256": "the search space",
    "slos": "the SLOs",
    "objectives": "the objectives",
    "evaluation": "how it is evaluated",
    "server_version": "the server's version",
    "gpu": "the GPU",
    "gpu_uuids": "the GPU's UUID",
    "driver": "the GPU driver",
    "energy_source": "where energy comes from",
    "latency_source": "where latency comes from",
}
_MAYBE_UNKNOWN = ("model_revision", "gpu_uuids")  # for example in studies of an older tuner
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")


def identity_of(
    name: str,
    spec: StudySpec,
    space: SearchSpace,
    workload: Workload,
    testbed: Testbed,
    capacity: Capacity | None = None,
    written_out: Configuration | None = None,
) -> StudyIdentity:
    """Return the identity of a new study; the last two are as in `StoredSpec`."""
    return StudyIdentity(
        name=name,
        created_at=datetime.now(UTC),
        model=spec.model,
        workload_name=workload.name,
        workload_sha256=workload.sha256,
        space_name=space.name,
        space_sha256=space.sha256(),
        slos=tuple(slo.text for slo in spec.slos),
        objectives=tuple(str(o) for o in spec.objectives),
        evaluation=testbed.kind,
        server_version=testbed.server_version,
        gpu=testbed.gpu,
        driver=testbed.driver,
        energy_source=testbed.energy_source,
        latency_source=testbed.latency_source,
        budget_trials=spec.trials,
        budget_s=None if spec.hours is None else spec.budget_s,
        spent_s=0.0,
        spec_json=StoredSpec(
            spec.model_copy(update={"study": name}).model_dump(mode="json"),
            fixed_configuration(space, spec.baseline),
            capacity,
            workload.default_load,
            workload.spec.output,
            {
                name: how.model_dump(mode="json", exclude_defaults=True)
                for name, how in (workload.spec.thinking_levels or {}).items()
            },
            workload.spec.default_level,
            written_out,
        ).to_json(),
        gpu_uuids=testbed.gpu_uuids,
        model_revision=(
            emulated_revision(spec.model)
            if testbed.kind == "virtual"
            else model_revision(spec.model)
        ),
    )


def require_same(stored: StudyIdentity, now: StudyIdentity) -> None:
    """Raise `PreflightError` with every difference: old and new results would not compare."""
    changed = [
        f"{what} (was {_shown(getattr(stored, field))}, is {_shown(getattr(now, field))})"
        for field, what in _SAME.items()
        if _differ(field, getattr(stored, field), getattr(now, field))
    ]
    if changed:
        raise PreflightError(
            f"study '{stored.name}' was measured under other conditions: {'; '.join(changed)}; "
            f"restore them, or start a new study from its points with `tuner run --from-study "
            f"{stored.name}`"
        )


def model_revision(model: str) -> str | None:
    """Return the revision of a model's files; None if unknown.

    For a folder it is a hash of its configuration and of the names and sizes of its weights. For a
    model in the Hugging Face cache it is the commit of `main`.
    """
    folder = Path(model).expanduser()
    try:
        if folder.is_dir():
            return _folder_sha256(folder)
        commit = _hub_cache() / f"models--{model.replace('/', '--')}" / "refs" / "main"
        return commit.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def emulated_revision(model: str) -> str | None:
    """Return a hash of what the emulator reads of a model's folder; None for a model by name."""
    parts = [path for name in MODEL_FILES if (path := Path(model) / name).is_file()]
    if not parts:
        return None
    try:
        return hashlib.sha256(b"\0".join(path.read_bytes() for path in parts)).hexdigest()
    except OSError:
        return None


def _folder_sha256(folder: Path) -> str:
    parts = [
        f"{path.name} {path.stat().st_size}"
        for path in sorted(folder.iterdir())
        if path.suffix in _WEIGHTS
    ]
    config = folder / "config.json"
    known = config.read_bytes() if config.is_file() else b""
    return hashlib.sha256(known + b"\0" + "\n".join(parts).encode()).hexdigest()


def _hub_cache() -> Path:
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    home = os.environ.get("HF_HOME")
    return (Path(home) if home else Path("~/.cache/huggingface").expanduser()) / "hub"


def _differ(field: str, stored: Any, now: Any) -> bool:
    if field in _MAYBE_UNKNOWN and (not stored or not now):
        return False
    return bool(stored != now)


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    text = str(value)
    is_hash = len(text) in (40, 64) and all(c in "0123456789abcdef" for c in text)
    return text[:12] if is_hash else text
