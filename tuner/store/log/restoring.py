"""Restore: write the results of a measurement log into the store's tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from sqlalchemy import Connection, Table

from tuner.configuration import Configuration
from tuner.store import convert
from tuner.store.log.log_records import LoggedResult
from tuner.store.repeats import study_id_of
from tuner.store.schema import RAW_RUNS, REPEAT_RAW_RUNS, REPEATS, TRIALS, add_row
from tuner.store.store import Store

_AT_ONCE = 200


def restore_results(
    store: Store, study: str, records: Sequence[LoggedResult], baseline: Configuration
) -> None:
    """Add results, with their times and owners, to a study that lacks these numbers.

    Trials of the configuration `baseline` are the baseline's.
    """
    left = iter(records)
    while batch := list(islice(left, _AT_ONCE)):
        with store.session() as session:
            study_id = study_id_of(session, study)
            for record in batch:
                _add(session, study_id, record, baseline)


def _add(session: Connection, study_id: int, logged: LoggedResult, baseline: Configuration) -> None:
    table, values = _begun(study_id, logged, baseline)
    values |= convert.ended_values(logged.result, logged.timing, logged.warnings)
    values |= {"started_at": logged.started_at, "ended_at": logged.ended_at}
    row_id = add_row(session, table, values)
    encoded = logged.encoded_raw
    if encoded is None:
        return
    if logged.repeat is None:
        add_row(session, RAW_RUNS, {"trial_id": row_id, "encoded": encoded})
    else:
        add_row(session, REPEAT_RAW_RUNS, {"repeat_id": row_id, "encoded": encoded})


def _begun(
    study_id: int, logged: LoggedResult, baseline: Configuration
) -> tuple[Table, convert.Values]:
    number, owner, repeat = logged.number, logged.owner, logged.repeat
    if repeat is not None:
        load = (repeat.traffic, repeat.load)
        begun = convert.repeat_values(study_id, number, repeat.trial, repeat.kind, owner, *load)
        probed = convert.probe_values(logged.answers, logged.grades, logged.pictures)
        return REPEATS, begun | probed
    configuration = logged.configuration
    is_baseline = configuration == baseline
    return TRIALS, convert.trial_values(study_id, number, configuration, is_baseline, owner)
