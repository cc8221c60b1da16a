"""What each command does: open the store, call the study or the report, print."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from tuner import DEFAULT_STORE
from tuner.errors import NoFeasibleConfigurationError, OperatorNeededError, UsageError
from tuner.interruption import run_interruptible
from tuner.slo import Slo
from tuner.store import Store

Options = Mapping[str, Any]


def run_study(study_file: Path | None, options: Options, store_url: str, *, as_json: bool) -> None:
    """`tuner run`."""
    from tuner.report.progress import RunDisplay
    from tuner.study.spec import spec_from
    from tuner.study.start import check_names, start_study

    spec = spec_from(study_file, options)
    check_names(spec)  # before a store is made for what cannot be run
    with Store.open(store_url, create=True) as store:
        with RunDisplay(
            Console(stderr=True), spec.slos, spec.objectives, _store_option(store_url)
        ) as display:
            name = run_interruptible(start_study(spec, store, display))
        _finish(store, name, as_json=as_json)


def resume_named(
    name: str,
    trials: int | None,
    hours: float | None,
    store_url: str,
    *,
    confirm: bool | None,
    as_json: bool,
) -> None:
    """`tuner resume`."""
    from tuner.report.progress import RunDisplay
    from tuner.study.start import resume_study, stored_spec

    with Store.open(store_url, create=False) as store:
        spec = stored_spec(store.study(name))
        with RunDisplay(
            Console(stderr=True), spec.slos, spec.objectives, _store_option(store_url)
        ) as display:
            run_interruptible(
                resume_study(
                    name, store, display, more_trials=trials, more_hours=hours, confirm=confirm
                )
            )
        _finish(store, name, as_json=as_json)


def show_list(store_url: str, *, as_json: bool) -> None:
    """`tuner list`."""
    from tuner.report.json_forms import studies_json
    from tuner.report.study_tables import show_studies

    with Store.open(store_url, create=False) as store:
        summaries = store.studies()
    if as_json:
        _print_json(studies_json(summaries))
    else:
        show_studies(Console(), summaries)


def show_study(name: str, store_url: str, *, as_json: bool) -> None:
    """`tuner show`."""
    from tuner.report import json_forms, study_tables

    with Store.open(store_url, create=False) as store:
        study, trials, events = store.study(name), store.trials(name), store.events(name)
        repeats = store.repeats.of(name)
    if as_json:
        _print_json(json_forms.study_json(study, trials, repeats, events))
    else:
        study_tables.show_study(Console(), study, trials, repeats, events)


def show_recommendation(
    model: str | None, study: str | None, slos: Sequence[str] | None, store_url: str, output: str
) -> None:
    """`tuner recommend`."""
    from tuner.report.json_forms import recommendation_json
    from tuner.report.recommend import recommend
    from tuner.report.tables import show_recommendation as show
    from tuner.report.vllm_config import vllm_config

    bounds = [Slo.parse(text) for text in slos] if slos else None
    with Store.open(store_url, create=False) as store:
        recommendation = recommend(store, model, study, bounds)
    if output == "json":
        _print_json(recommendation_json(recommendation))
    elif output == "vllm":
        print(vllm_config(recommendation), end="")  # noqa: T201 - the result on stdout
    else:
        show(Console(), recommendation, _store_option(store_url))


def export_study(name: str, csv: Path | None, parquet: Path | None, store_url: str) -> None:
    """`tuner export`."""
    from tuner.report.export import trial_rows, write_csv, write_parquet

    if csv is None and parquet is None:
        raise UsageError("nothing to write: give --csv FILE or --parquet FILE")
    with Store.open(store_url, create=False) as store:
        rows = trial_rows(store.study(name), store.trials(name), store.repeats.of(name))
    console = Console(stderr=True)
    for path, write in ((csv, write_csv), (parquet, write_parquet)):
        if path == Path("-"):
            write(rows, Path("/dev/stdout"))
        elif path is not None:
            write(rows, path)
            console.print(f"wrote {len(rows)} trials to {path}", highlight=False)


def measure_configuration(options: Options, settings: Sequence[str], *, as_json: bool) -> None:
    """`tuner measure`."""
    from tuner.report.once import measured_json, show_measured
    from tuner.study.once import measure_once, parse_settings
    from tuner.study.spec import spec_from

    configuration = parse_settings(settings)
    spec = spec_from(None, {**options, "trials": 1})
    note = Console(stderr=True).print
    measured = run_interruptible(measure_once(spec, configuration, note))
    if as_json:
        _print_json(measured_json(measured))
    else:
        show_measured(Console(), measured, spec.slos)


def gpu_status(*, as_json: bool) -> None:
    """`tuner gpu status`."""
    from tuner.gpu.durable import state_folder
    from tuner.gpu.leases import LeaseBook
    from tuner.gpu.limits import Access, opened_limits
    from tuner.report.gpu_status import machine_status, show_status, status_json

    with opened_limits(Access.READ) as control:
        status = machine_status(control, LeaseBook(state_folder()))
    if as_json:
        _print_json(status_json(status))
    else:
        show_status(Console(), status)


def gpu_restore(*, force: bool, as_json: bool) -> None:
    """`tuner gpu restore`; raises `OperatorNeededError` if something is still not as found."""
    from tuner.gpu.durable import state_folder
    from tuner.gpu.leases import LeaseBook
    from tuner.gpu.limits import Access, opened_limits
    from tuner.report.gpu_status import is_restored, restore_json, show_restore

    opener = partial(opened_limits, Access.SET)
    outcomes = LeaseBook(state_folder()).restore_all(opener, force=force)
    if as_json:
        _print_json(restore_json(outcomes))
    else:
        show_restore(Console(), outcomes)
    if not is_restored(outcomes):
        raise OperatorNeededError("not every GPU is as it was found; see above")


def _finish(store: Store, name: str, *, as_json: bool) -> None:
    """Print the front; raises `NoFeasibleConfigurationError` if there is none."""
    from tuner.report.confirmed import standing
    from tuner.report.infeasible import nothing_met
    from tuner.report.json_forms import front_json
    from tuner.report.tables import show_front

    study, trials = store.study(name), store.trials(name)
    found = standing(study, trials, store.repeats.of(name))
    if as_json:
        _print_json(front_json(found))
    else:
        show_front(Console(), found)
    if not found.front:
        raise NoFeasibleConfigurationError(nothing_met(study, trials, found.slos))


def _store_option(store_url: str) -> str:
    """Return what a command has to be given to find this store again."""
    return "" if store_url == DEFAULT_STORE else f" --store {shlex.quote(store_url)}"


def _print_json(data: object) -> None:
    print(json.dumps(data, indent=2, allow_nan=False))  # noqa: T201 - the result on stdout
