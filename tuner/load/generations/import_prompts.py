"""Import of a list of prompts: a workload of images or videos that asks for them in their order."""

from __future__ import annotations

import csv
import io
import json
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from tuner.catalog.yaml_files import find_yaml, read_yaml
from tuner.errors import UsageError
from tuner.host.durable_files import replacing
from tuner.load.generations.prompts import LONGEST, prompt_text, read_prompts, read_text
from tuner.load.workload import Workload
from tuner.load.workload_spec import WorkloadSpec

_TABLES = {".csv": ",", ".tsv": "\t"}
_COLUMN = "prompt"


def import_prompts(source: Path, like: str, out: Path, limit: int | None = None) -> Workload:
    """Write `out` (a new YAML file) and the prompts beside it; returns the workload.

    `source` is text with a prompt a line, JSON lines with `prompt`, or a table (.csv, .tsv) with a
    column of that name. Sizes, steps and load are those of the workload `like`. Raises `UsageError`
    for a source that is malformed, naming the line, or an `out` that exists; then nothing is
    written.
    """
    spec = read_yaml(find_yaml("workloads", like), WorkloadSpec)
    if spec.generation is None:
        raise UsageError(f"--like {like}: it asks for text; take image, video, or one like them")
    if out.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--out must be a YAML file, like workloads/{source.stem}.yaml")
    beside = out.with_suffix(".prompts.jsonl")
    for path in (out, beside):
        if path.exists():
            raise UsageError(f"'{path}' exists; remove it, or import under another name")
    prompts = list(islice(_prompts(source), limit))
    if not prompts:
        raise UsageError(f"'{source}' has no prompts")
    lines = "".join(json.dumps({"prompt": p}, ensure_ascii=False) + "\n" for p in prompts)
    fields = _fields(spec, f"{len(prompts)} prompts of {source.name}", like)
    fields["generation"]["prompts"] = beside.name
    text = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(beside) as new_prompts, replacing(out) as new_yaml:
            new_prompts.write(lines.encode())
            new_yaml.write(text.encode())
    except OSError as error:
        raise UsageError(f"cannot write '{out}': {error.strerror or error}") from None
    return Workload(out.stem, WorkloadSpec.model_validate(fields), out.parent)


def _fields(spec: WorkloadSpec, what: str, like: str) -> dict[str, Any]:
    generation = spec.model_dump(mode="json", exclude_none=True)["generation"]
    load = spec.load.model_dump(mode="json", exclude_none=True)
    return {
        "description": f"{what}.",
        "sources": [f"{what}; sizes, steps and load of the workload {Path(like).stem}"],
        "generation": generation,
        "load": load,
    }


def _prompts(source: Path) -> list[str]:
    delimiter = _TABLES.get(source.suffix.lower())
    if delimiter is None:
        return list(read_prompts(source).prompts)
    csv.field_size_limit(LONGEST * 4)
    rows = csv.reader(io.StringIO(read_text(source), newline=""), delimiter=delimiter)
    try:
        heads = [name.strip().lower() for name in next(rows, [])]
        if _COLUMN not in heads:
            raise UsageError(
                f"'{source}', line 1: expected a column '{_COLUMN}', found "
                f"{', '.join(heads)[:200] or 'nothing'}"
            )
        at = heads.index(_COLUMN)
        return [
            prompt_text(f"'{source}', line {rows.line_num}", row[at])
            for row in rows
            if len(row) > at and row[at].strip()
        ]
    except csv.Error as error:
        raise UsageError(f"'{source}', line {rows.line_num}: {error}") from None
