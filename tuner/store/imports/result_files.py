"""Where results of load tests stand: a JSON object, lines, a list, a CSV, or a sweep's folder.

`vllm bench serve --save-result` writes one object, `--append-result` and SGLang's `bench_serving`
one a line. `vllm bench sweep` writes `run=0.json` for each run in a folder for each combination,
and a list of them all in `summary.json` and `summary.csv`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.errors import UsageError

WRITE_ONE = "write one with `vllm bench serve ... --save-result`"
_IN_FOLDERS = ("run=*.json", "summary.json", "summary.csv")  # the runs, else what sums them up
_MOST_SHOWN = 4
_OF_A_RESULT = re.compile(
    r"(mean|median|std|p\d+)_.*_ms|total_.*|.*_throughput|(model|tokenizer)_id|.*goodput.*"
    r"|request_rate|burstiness|max_concurrency|num_prompts|ramp_up_.*|backend|endpoint_type"
    r"|completed|failed|duration|date|label|tag|concurrency|accept_length|rtfx"
    r"|max_output_tokens_per_s|max_concurrent_requests|errors|ttfts|itls|(input|output)_lens"
)


@dataclass(frozen=True, slots=True)
class StoredResult:
    """One result: what its file calls it, the hash of its text, and its fields."""

    name: str
    where: str
    sha256: str
    fields: dict[str, Any]


def stored_results(path: Path) -> list[StoredResult]:
    """Return the results of a file or of a sweep's folder. Raises `UsageError` for none."""
    if path.is_dir():
        return [
            result
            for file in _files_of_sweep(path)
            for result in _results_of_file(file, str(file.relative_to(path)))
        ]
    return _results_of_file(path, path.name)


def _files_of_sweep(folder: Path) -> list[Path]:
    for pattern in _IN_FOLDERS:
        if found := sorted(folder.rglob(pattern)):
            return found
    raise UsageError(
        f"'{folder}' holds no results of `vllm bench sweep` (run=0.json, summary.json or "
        "summary.csv, at any depth)"
    )


def _results_of_file(path: Path, name: str) -> list[StoredResult]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"'{path}' is not text; {WRITE_ONE}") from None
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror}") from None
    whole = content.strip()
    lines = [line for line in whole.split("\n") if line.strip()]
    for texts in ([whole], lines):
        objects = [one for text in texts if isinstance(one := _parsed(text), dict)]
        if texts and len(objects) == len(texts):
            return [
                StoredResult(name, f"'{path}'", _sha256(text), one)
                for text, one in zip(texts, objects, strict=True)
            ]
    rows = _parsed(whole) if path.suffix != ".csv" else list(_rows_of_csv(whole))
    if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
        return [_of_list(path, name, number, row) for number, row in enumerate(rows, start=1)]
    raise UsageError(f"'{path}' holds no JSON object; {WRITE_ONE}")


def _of_list(path: Path, name: str, number: int, row: dict[str, Any]) -> StoredResult:
    """Return one row of a summary, named by what was varied."""
    varied = [
        f"{key}={value}"
        for key, value in row.items()
        if not _OF_A_RESULT.fullmatch(key) and isinstance(value, str | int | float)
    ]
    words = ", ".join(varied[:_MOST_SHOWN])
    text = json.dumps(row, sort_keys=True, default=str)
    shown = f"{name} {number}" + (f" ({words})" if words else "")
    return StoredResult(shown, f"'{path}', result {number}", _sha256(text), row)


def _rows_of_csv(content: str) -> Iterator[dict[str, Any]]:
    try:
        for row in csv.DictReader(io.StringIO(content)):
            yield {key: _of_csv(value) for key, value in row.items() if isinstance(key, str)}
    except csv.Error:
        return


def _of_csv(value: object) -> object:
    """Return a number where a field is one; pandas writes whole numbers as 500.0."""
    if not isinstance(value, str) or value == "":
        return None
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
