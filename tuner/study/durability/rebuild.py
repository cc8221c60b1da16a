"""Rebuild a store from the measurement logs: the tuner's tables and Optuna's, in the old order."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from tuner.configuration import Configuration, Value
from tuner.errors import OperatorNeededError, UsageError
from tuner.evaluation.factory import baseline_configuration
from tuner.host.durable_files import sync
from tuner.host.files.private import open_private, private_folder
from tuner.records import Failure, FailureKind, Measurement, Timing
from tuner.spec.device_ranges import ranges_for
from tuner.spec.search_space import SearchSpace, load_space
from tuner.spec.stored import spec_of
from tuner.spec.study import StudySpec
from tuner.store import Store
from tuner.store.address import parse_address
from tuner.store.inputs.study_files import StudyFile
from tuner.store.log.log_records import LoggedResult, LoggedStudy
from tuner.store.log.measurement_log import log_folder_of, read_log
from tuner.store.log.restoring import restore_results
from tuner.study.durability.results import all_warnings, require_metrics
from tuner.study.inputs.keeping import files_to_keep
from tuner.study.loop import MAX_ATTEMPTS, has_crashed, is_configurations_fault
from tuner.study.proposals.proposals import Proposal, Proposals
from tuner.study.proposals.search_task import BASELINE, Asker
from tuner.study.proposals.start_points import parameters_of


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The outcome for one log; `damaged_lines` failed their checksum and were left out."""

    study: str
    trials: int
    repeats: int
    damaged_lines: int


@dataclass(frozen=True, slots=True)
class _Contents:
    study: LoggedStudy
    defaults: Mapping[str, Value]
    trials: tuple[LoggedResult, ...]
    repeats: tuple[LoggedResult, ...]
    damaged: int


@dataclass(frozen=True, slots=True)
class _Failed:
    record: LoggedResult
    parameters: dict[str, Value]
    attempt: int

    @property
    def next_attempt(self) -> int:
        """Its number; a busy machine, which was waited for, takes none."""
        result = self.record.result
        is_busy = isinstance(result, Failure) and result.kind is FailureKind.BUSY
        return self.attempt if is_busy else self.attempt + 1


def rebuild(folder: Path, target: Path, note: Callable[[str], None]) -> list[Rebuilt]:
    """Make a store at `target` from the measurement logs in `folder`.

    Raises `UsageError` if `target` exists or `folder` holds no log, `OperatorNeededError` for a log
    that cannot be read.
    """
    if target.exists():
        raise UsageError(f"'{target}' exists already; name a file that does not")
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise UsageError(
            f"there is no measurement log in {folder}; name the store of the runs with --store"
        )
    new_folder = log_folder_of(parse_address(target), target.parent)
    if new_folder.exists():
        raise UsageError(f"'{new_folder}' exists already; name another file for the new store")
    done: list[Rebuilt] = []
    with Store.open(target, create=True) as store:
        for path in paths:
            contents = _contents(path)
            if contents is None:
                note(f"{path} names no study and was left out")
            elif contents.study.identity.name in {r.study for r in done}:
                note(f"{path} is of an earlier study of the same name and was left out")
            else:
                done.append(_rebuild(contents, store))
                _copy(path, new_folder / path.name)
    return done


def _copy(log: Path, new: Path) -> None:
    """Copy the old log to the new store's log folder, for this user alone."""
    private_folder(new.parent)
    with log.open("rb") as old, os.fdopen(open_private(new, os.O_WRONLY), "wb") as copy:
        shutil.copyfileobj(old, copy)
    sync(new)


def _contents(path: Path) -> _Contents | None:
    studies: list[LoggedStudy] = []
    trials: dict[int, LoggedResult] = {}
    repeats: dict[int, LoggedResult] = {}
    damaged = 0
    try:
        for line in read_log(path):
            if isinstance(line.record, LoggedStudy):
                studies.append(line.record)
            elif line.record is None:
                damaged += 1
            else:
                kind = trials if line.record.repeat is None else repeats
                kind[line.record.number] = line.record
    except OSError as error:
        raise OperatorNeededError(f"{path} cannot be read ({error.strerror}); fix that") from error
    if not studies:
        return None
    return _Contents(
        studies[-1],
        next((s.defaults for s in studies if s.defaults), {}),
        tuple(trials[n] for n in sorted(trials)),
        tuple(repeats[n] for n in sorted(repeats)),
        damaged,
    )


def _rebuild(contents: _Contents, store: Store) -> Rebuilt:
    identity = contents.study.identity
    spec = spec_of(identity)
    space = load_space(spec.space, partial(ranges_for, spec))
    if space.sha256() != identity.space_sha256:
        raise OperatorNeededError(
            f"the search space {spec.space} is no longer what study '{identity.name}' was measured "
            "with; put the file back as it was, then rebuild again"
        )
    spent_s = sum(r.spent_s for r in (*contents.trials, *contents.repeats))
    unfinished = replace(identity, spent_s=spent_s, finished_at=None)
    store.create_study(unfinished, _files(spec, space))
    settled_trials = [_settled(spec, record) for record in contents.trials]
    baseline = baseline_configuration(space, spec.baseline)
    restore_results(store, identity.name, [*settled_trials, *contents.repeats], baseline)
    told = _told_again(identity.name, spec, space, settled_trials, contents.defaults)
    with store.optuna_faults():
        optuna.copy_study(
            from_study_name=identity.name,
            from_storage=told,
            to_storage=store.optuna_storage(),
        )
    store.add_event(identity.name, "rebuilt", "this store was rebuilt from the measurement log")
    return Rebuilt(identity.name, len(contents.trials), len(contents.repeats), contents.damaged)


def _files(spec: StudySpec, space: SearchSpace) -> list[StudyFile]:
    """Return the files to keep; none if one is gone, as they are not in the log."""
    try:
        return files_to_keep(spec, space)
    except UsageError:
        return []


def _settled(spec: StudySpec, record: LoggedResult) -> LoggedResult:
    result = require_metrics(spec, record.result)
    if isinstance(result, Failure):
        return replace(record, result=result)
    warnings = all_warnings(spec, result, record.raw, record.warnings)
    return replace(record, result=result, warnings=warnings)


def _told_again(
    name: str,
    spec: StudySpec,
    space: SearchSpace,
    records: list[LoggedResult],
    defaults: Mapping[str, Value],
) -> InMemoryStorage:
    """Return an Optuna study in which every record was told under its old trial number.

    A number without a record (an interrupted evaluation) becomes a failed trial. A configuration
    that failed through no fault of its own and was not retried is queued again.
    """
    storage = InMemoryStorage()
    # the records are the same for every sampler, and this one needs no settings
    baseline = baseline_configuration(space, spec.baseline)
    proposals = Proposals(
        storage,
        name,
        space,
        spec.slos,
        spec.objectives,
        "random",
        spec.seed,
        baseline=baseline,
    )
    study = optuna.load_study(study_name=name, storage=storage, sampler=RandomSampler())
    known = {record.number: record for record in records}
    failed: dict[str, _Failed] = {}
    for number in range(max(known, default=-1) + 1):
        record = known.get(number)
        configuration = None if record is None else record.configuration
        parameters = None
        if configuration is not None:
            parameters = parameters_of(space, configuration, defaults)
        if record is None or parameters is None:
            study.add_trial(optuna.create_trial(state=TrialState.FAIL))
            continue
        key = json.dumps(record.configuration.to_json(), sort_keys=True)
        before = failed.pop(key, None)
        attempt = 1 if before is None else before.next_attempt
        attributes = _attributes(record, attempt, baseline)
        study.enqueue_trial(parameters, user_attrs=attributes)
        asked = proposals.ask(Asker(record.owner.card))
        assert asked.number == number
        if _tell(proposals, record, asked):
            failed[key] = _Failed(record, parameters, attempt)
    for again in failed.values():
        if again.next_attempt <= MAX_ATTEMPTS:
            attributes = _attributes(again.record, again.next_attempt, baseline)
            study.enqueue_trial(again.parameters, user_attrs=attributes)
    return storage


def _attributes(record: LoggedResult, attempt: int, baseline: Configuration) -> dict[str, Any]:
    return {BASELINE: record.configuration == baseline, "attempt": attempt}


def _tell(proposals: Proposals, record: LoggedResult, asked: Proposal) -> bool:
    """Tell a record to Optuna; return whether the same point must be tried again."""
    number, result = record.number, record.result
    proposals.note_timing(number, Timing(record.spent_s, record.timing.launch_s))
    if isinstance(result, Measurement):
        proposals.tell_measured(number, result)
    elif is_configurations_fault(result, asked.attempt):
        crashed = has_crashed(result, measured=record.encoded_raw is not None)
        proposals.tell_infeasible(number, result.reason, crashed=crashed)
    else:
        proposals.give_up(number)
        return True
    return False
