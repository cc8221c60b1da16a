"""One factory each for what is stored: a study, a trial, a repeat, a run and its measurement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tuner.configuration import Configuration
from tuner.records import (
    Failure,
    FloatArray,
    Measurement,
    PowerTimeline,
    RawRun,
    RequestRecord,
    RequestState,
    ServerTimeline,
    Source,
)
from tuner.store import RepeatKind, RepeatRow, StudyIdentity, TrialOwner, TrialRow, TrialState

START = datetime(2026, 3, 1, 22, tzinfo=UTC)
OWNER = TrialOwner(1, "boot", "host", "tag")
IDENTITY = StudyIdentity(
    name="night",
    created_at=START,
    model="meta-llama/Llama-3.1-8B",
    workload_name="chat",
    workload_sha256="a" * 64,
    space_name="power",
    space_sha256="b" * 64,
    slos=("p99_tpot_ms<=50",),
    objectives=("energy_per_output_token_j", "p99_tpot_ms"),
    evaluation="live",
    server_version="0.11.0",
    gpu="NVIDIA H100 80GB HBM3",
    driver="570.86",
    energy_source=Source.MEASURED,
    latency_source=Source.MEASURED,
    budget_trials=7,
    budget_s=None,
    spent_s=5400.0,
    spec_json={"seed": 1},
    finished_at=datetime(2026, 3, 2, 6, tzinfo=UTC),
)
NOTHING: FloatArray = np.array([])


def study_identity(**changes: Any) -> StudyIdentity:
    """Return the identity of a measured night, with these changes."""
    return replace(IDENTITY, **changes)


def measured(
    metrics: Mapping[str, float],
    latency_source: Source = Source.MEASURED,
    energy_source: Source = Source.MEASURED,
    *,
    window_s: tuple[float, float] = (10.0, 70.0),
) -> Measurement:
    """Return a measurement of one window."""
    return Measurement(metrics, *window_s, latency_source, energy_source)


def trial_row(
    number: int,
    result: Measurement | Failure | None,
    configuration: Configuration | None = None,
    **more: Any,
) -> TrialRow:
    """Return a trial as the store gives it; number 0 is the baseline."""
    row = TrialRow(
        number=number,
        configuration=configuration or Configuration(),
        baseline=number == 0,
        state=TrialState.FAILED if isinstance(result, Failure) else TrialState.MEASURED,
        measurement=result if isinstance(result, Measurement) else None,
        failure=result if isinstance(result, Failure) else None,
        warnings=(),
        started_at=START,
        ended_at=START,
        owner=OWNER,
    )
    return replace(row, **more)


def repeat_row(
    number: int, trial: int, result: Measurement | Failure, kind: RepeatKind, **more: Any
) -> RepeatRow:
    """Return a repeat of a trial as the store gives it."""
    row = RepeatRow(
        number=number,
        trial=trial,
        kind=kind,
        state=TrialState.FAILED if isinstance(result, Failure) else TrialState.MEASURED,
        measurement=result if isinstance(result, Measurement) else None,
        failure=result if isinstance(result, Failure) else None,
        warnings=(),
        started_at=START,
        ended_at=START,
        owner=OWNER,
    )
    return replace(row, **more)


def request_record(
    request_id: int,
    scheduled_s: float,
    token_times_s: Sequence[float] | FloatArray = (),
    state: RequestState = RequestState.DONE,
    **more: Any,
) -> RequestRecord:
    """Return a request that ended with its last token, or a second after it was due."""
    times_s = np.array(token_times_s, dtype=np.float64)
    record = RequestRecord(
        request_id=request_id,
        prompt_tokens=5,
        output_tokens=max(times_s.size, 1),
        scheduled_s=scheduled_s,
        sent_s=scheduled_s,
        token_times_s=times_s,
        ended_s=float(times_s[-1]) if times_s.size else scheduled_s + 1.0,
        state=state,
    )
    return replace(record, **more)


def raw_run(
    requests: Iterable[RequestRecord] = (),
    power: PowerTimeline | None = None,
    server: ServerTimeline | None = None,
    *,
    window_s: tuple[float, float] = (10.0, 70.0),
) -> RawRun:
    """Return a measured run; what no test asks for is empty."""
    return RawRun(
        tuple(requests),
        power or PowerTimeline(NOTHING, NOTHING, NOTHING, Source.MEASURED),
        server or ServerTimeline(NOTHING, NOTHING, NOTHING),
        *window_s,
        Source.MEASURED,
    )
