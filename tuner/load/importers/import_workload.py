"""Import of a trace: from another project's format to a workload file with our trace beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tuner.errors import UsageError
from tuner.host.durable_files import replacing
from tuner.load.importers.importer import Importer
from tuner.load.importers.reading import Reading
from tuner.load.importers.registry import importer_named
from tuner.load.traces.trace_file import unreadable, write_trace
from tuner.load.workload import Workload
from tuner.load.workload_spec import WorkloadSpec

_CONCURRENCY = 64  # of a workload without times, until the user says otherwise
_RATE_DIGITS = 4


def import_workload(
    source: Path, form: str, out: Path, limit: int | None = None, reading: Reading | None = None
) -> Workload:
    """Write `out` (a new YAML file) and its trace; returns the workload.

    `reading` holds the user's decisions, and afterwards what there is to say. Raises `UsageError`
    for a source that is malformed, naming the line, or an `out` that exists; then nothing is
    written.
    """
    importer = importer_named(form)
    reading = reading or Reading()
    _check(reading, form, importer)
    if out.suffix not in (".yaml", ".yml"):
        raise UsageError(f"--out must be a YAML file, like workloads/{source.stem}.yaml")
    trace = out.with_suffix(".jsonl.gz")
    for path in (out, trace):
        if path.exists():
            raise UsageError(f"'{path}' exists; remove it, or import under another name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(trace) as new_trace, replacing(out) as new_yaml:
            if write_trace(new_trace, importer.rows(source, reading), limit) == 0:
                why = f" ({'; '.join(reading.notes())})" if reading.notes() else ""
                raise UsageError(f"'{source}' has no requests{why}")
            new_trace.flush()
            written = Path(new_trace.name)
            spec = _spec(f"{source.name} ({form})", importer, written, limit, reading)
            spec["trace"]["file"] = trace.name
            text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=100)
            new_yaml.write(text.encode())
    except OSError as error:
        raise unreadable(out, error) from None
    return Workload(out.stem, WorkloadSpec.model_validate(spec), out.parent)


def _check(reading: Reading, form: str, importer: Importer) -> None:
    if reading.time_unit is not None and not importer.has_time_unit:
        raise UsageError(f"--time-unit: the format {form} has no times, or has them as dates")
    if reading.block_tokens is not None and importer.block_tokens is None:
        raise UsageError(f"--block-tokens: the format {form} has no hash ids")


def _spec(
    source: str, importer: Importer, trace: Path, limit: int | None, reading: Reading
) -> dict[str, Any]:
    """Return the YAML file's content for the trace in the file `trace`."""
    fields: dict[str, Any] = {
        "description": f"Imported from {source}.",
        "sources": [_described(source, importer, limit), *reading.notes()],
        "trace": {"file": trace.name},
        "load": {"concurrency": _CONCURRENCY},
    }
    if importer.block_tokens is not None:
        fields["trace"]["block_tokens"] = reading.block_tokens or importer.block_tokens
    facts = Workload(trace.name, WorkloadSpec.model_validate(fields), trace.parent).facts
    assert facts is not None
    fields["sources"].append(f"{facts.rows} requests, up to {facts.max_request_tokens} tokens each")
    if facts.span_s > 0:
        rate = (facts.rows - 1) / facts.span_s
        fields["load"] = {"request_rate": float(f"{rate:.{_RATE_DIGITS}g}"), "arrivals": "trace"}
    return fields


def _described(source: str, importer: Importer, limit: int | None) -> str:
    first = "" if limit is None else f", the first {limit} requests"
    caveat = f", {importer.caveat}" if importer.caveat else ""
    return f"{source}{first}{caveat}"
