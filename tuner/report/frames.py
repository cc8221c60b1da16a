"""Studies as tables for other tools: one row per trial, or one per request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tuner.analysis.confirmed_front import ConfirmedFront, confirmed_front
from tuner.analysis.outcomes import kind_of_study
from tuner.analysis.trial_summary import TrialSummary
from tuner.configuration import Value
from tuner.errors import PreflightError
from tuner.host.durable_files import replacing
from tuner.metrics import METRICS, OutputKind, kind_of
from tuner.records import Measurement
from tuner.slo import Slo
from tuner.store import Store
from tuner.store.rows import RepeatRow, StudyIdentity, TrialRow

if TYPE_CHECKING:
    from typing import BinaryIO

    import pandas as pd

Cell: TypeAlias = Value | None
RowCells: TypeAlias = dict[str, Cell]


def trial_rows(
    study: StudyIdentity,
    trials: Sequence[TrialRow],
    repeats: Sequence[RepeatRow],
    slos: Sequence[Slo] | None = None,
) -> list[RowCells]:
    """Return one row per trial; a knob left at its default and a missing metric are None.

    Metrics are those that every report shows: of a confirmed trial those of its repeats. What the
    search measured in its single window is `search.METRIC`.
    """
    found = confirmed_front(study, trials, repeats, slos)
    on_front = {t.number for t in found.front}
    knobs = sorted({name for t in trials for name in t.configuration.knobs()})
    return [
        _trial_row(found, t, searched, t.number in on_front, knobs)
        for t, searched in zip(found.trials, trials, strict=True)
    ]


def repeat_rows(study: str, repeats: Sequence[RepeatRow]) -> list[RowCells]:
    """Return one row per repeat of a trial, the default's included."""
    known = (r.measurement.metrics for r in repeats if r.measurement is not None)
    kind = kind_of(next(known, {}))
    return [
        {
            "study": study,
            "number": r.number,
            "trial": r.trial,
            "kind": r.kind.value,
            "state": r.state.value,
            **_metrics(kind, r.measurement),
            "failure_reason": None if r.failure is None else r.failure.reason,
            "started_at": r.started_at.isoformat(),
            "ended_at": None if r.ended_at is None else r.ended_at.isoformat(),
        }
        for r in repeats
    ]


def request_rows(store: Store, study: str) -> list[RowCells]:
    """Return one row per request of every trial with raw records; each trial has its own clock."""
    rows: list[RowCells] = []
    for trial in store.trials(study):
        run = store.raw_run(study, trial.number)
        for r in () if run is None else run.requests:
            tokens = len(r.token_times_s)
            rows.append(
                {
                    "study": study,
                    "trial": trial.number,
                    "request_id": r.request_id,
                    "state": r.state.value,
                    "error": r.error,
                    "prompt_tokens": r.prompt_tokens,
                    "output_tokens": r.output_tokens,
                    "received_tokens": tokens,
                    "scheduled_s": r.scheduled_s,
                    "sent_s": r.sent_s,
                    "first_token_s": float(r.token_times_s[0]) if tokens else None,
                    "last_token_s": float(r.token_times_s[-1]) if tokens else None,
                    "ended_s": r.ended_s,
                    "latency_source": None if run is None else run.latency_source.value,
                }
            )
    return rows


def write_csv(rows: Sequence[RowCells], path: Path) -> None:
    """Write CSV: unknown is an empty field, floats are written so that they read back the same."""
    table = frame(rows)
    _write(path, lambda file: file.write(table.to_csv(index=False).encode()))


def write_parquet(rows: Sequence[RowCells], path: Path) -> None:
    """Write Parquet; raises `PreflightError` if pyarrow is not installed."""
    if find_spec("pyarrow") is None:
        raise PreflightError(
            "Parquet needs pyarrow; run `pip install pyarrow`, or export with --csv"
        )
    table = frame(rows)
    _write(path, lambda file: table.to_parquet(file, index=False))


def writer_for(path: Path | None) -> Callable[[Sequence[RowCells], Path], None]:
    """Return what writes the kind of file that a name ends with: Parquet, or else CSV."""
    return write_parquet if path is not None and path.suffix == ".parquet" else write_csv


def frame(rows: Sequence[RowCells]) -> pd.DataFrame:
    """Return the rows as a pandas table whose columns keep their type beside missing values."""
    import pandas as pd

    names = list(dict.fromkeys(name for row in rows for name in row))
    return pd.DataFrame({name: _column(name, rows) for name in names})


def _trial_row(
    found: ConfirmedFront, trial: TrialRow, searched: TrialRow, on_front: bool, knobs: Iterable[str]
) -> RowCells:
    own, failure = trial.configuration.knobs(), trial.failure
    shown = found.summary(trial)
    row: RowCells = {
        "study": found.study.name,
        "number": trial.number,
        "state": trial.state.value,
        "baseline": trial.baseline,
        "meets_slo": shown.meets_slo,
        "on_front": on_front,
        "confirmed": shown.confirmed,
        "repeats": shown.repeats,
        "requests": shown.requests,
        "saving_percent": shown.saving_percent,
        "tied_with_default": shown.tied_with_default,
        **_kwh(shown),
    }
    row |= {f"knob.{name}": own.get(name) for name in knobs}
    kind = kind_of_study(found.study)
    row |= _metrics(kind, trial.measurement)
    of_search = _metrics(kind, searched.measurement)
    row |= {f"search.{name}": value for name, value in of_search.items()}
    measured = searched.measurement
    return row | {
        "energy_source": None if measured is None else measured.energy_source.value,
        "latency_source": None if measured is None else measured.latency_source.value,
        "failure_kind": None if failure is None else failure.kind.value,
        "failure_reason": None if failure is None else failure.reason,
        "warnings": "; ".join(trial.warnings) or None,
        "started_at": trial.started_at.isoformat(),
        "ended_at": None if trial.ended_at is None else trial.ended_at.isoformat(),
    }


def _kwh(shown: TrialSummary) -> RowCells:
    """Return the energy of what costs are told of: a million tokens, 1,000 images..., kWh."""
    many = shown.kind.many.replace(" ", "_").replace(",", "")
    return {f"kwh_per_{many}": shown.kwh_per_many}


def _metrics(kind: OutputKind, found: Measurement | None) -> RowCells:
    names = [name for name in METRICS if not kind.lacks(name)]
    return {name: None if found is None else found.metrics.get(name) for name in names}


def _column(name: str, rows: Sequence[RowCells]) -> pd.Series[Any]:
    import pandas as pd

    values = [row.get(name) for row in rows]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    is_metric = name.removeprefix("search.") in METRICS
    if kinds == {int} and not is_metric:
        return pd.Series(values, dtype="Int64")
    if is_metric or (kinds and kinds <= {int, float}):
        return pd.Series(values, dtype="Float64")
    return pd.Series([None if v is None else str(v) for v in values], dtype="string")


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write beside `path` and move into place, so that `path` is never half a file.

    What is no regular file (a pipe, `/dev/stdout`) is written to directly.
    """
    if path.exists() and not path.is_file():
        _write_directly(path, write)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as new:
            write(new)
    except OSError as error:
        raise _unwritable(path, error) from None


def _write_directly(path: Path, write: Callable[[BinaryIO], object]) -> None:
    try:
        with path.open("wb") as file:
            write(file)
    except BrokenPipeError:
        raise  # the reader of a pipe wants no more
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> PreflightError:
    return PreflightError(f"cannot write '{path}' ({error.strerror or error}); name another file")
