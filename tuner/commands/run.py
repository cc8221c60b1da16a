"""`tuner run` and `tuner resume`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.option_groups import with_option_groups
from tuner.commands.shared.options import Format, Name, Output, StoreUrl
from tuner.commands.shared.output import print_json, stdout_console, store_option
from tuner.commands.shared.spec_options import StudyOptions
from tuner.errors import NoFeasibleConfigurationError

if TYPE_CHECKING:
    from tuner.store import Store


@with_option_groups
def run(
    options: StudyOptions,
    study_file: Annotated[
        Path | None, typer.Argument(help="STUDY.yaml with any of the options below.")
    ] = None,
    store_url: StoreUrl = DEFAULT_STORE,
    from_study: Annotated[
        str | None,
        typer.Option(
            help="Begin with the best points of this older study; without a STUDY.yaml, what is "
            "not said is asked for as for that one."
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Run a study: find the configurations of least energy that meet the SLO.

    Example: tuner run --model meta-llama/Llama-3.1-8B-Instruct --workload chat --space power
    --slo 'p99_tpot_ms<=50' --hours 8
    """
    from rich.console import Console

    from tuner.host.signals import run_interruptible
    from tuner.report.terminal.progress import RunDisplay
    from tuner.spec.study import spec_from
    from tuner.store import Store
    from tuner.study.proposals.start_points import asked_like
    from tuner.study.run import check_names, start_study

    given = options.given()
    if from_study is not None and study_file is None:
        with Store.open(store_url, create=False) as store:
            given = asked_like(store.study(from_study), given)
    spec = spec_from(study_file, given)
    check_names(spec)  # before a store is made for what cannot be run
    with Store.open(store_url, create=True) as store:
        with RunDisplay(
            Console(stderr=True), spec.slos, spec.objectives, store_option(store_url)
        ) as display:
            name = run_interruptible(start_study(spec, store, display, from_study=from_study))
        _finish(store, name, as_json=output is Format.JSON)


def resume(
    name: Name,
    trials: Annotated[int | None, typer.Option(min=1, help="So many trials more.")] = None,
    hours: Annotated[float | None, typer.Option(help="So many hours more.")] = None,
    confirm: Annotated[
        bool | None,
        typer.Option(
            "--confirm/--no-confirm", help="Measure the front again (default: as for the run)."
        ),
    ] = None,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Go on with an interrupted study to its original budget, or beyond it, and confirm it.

    Example: tuner resume my-study --hours 4
    """
    from rich.console import Console

    from tuner.host.signals import run_interruptible
    from tuner.report.terminal.progress import RunDisplay
    from tuner.spec.stored import spec_of
    from tuner.store import Store
    from tuner.study.run import resume_study

    with Store.open(store_url, create=False) as store:
        spec = spec_of(store.study(name))
        console = Console(stderr=True)
        known = store.trials(name) if console.is_terminal else ()  # a log shows no front
        with RunDisplay(
            console, spec.slos, spec.objectives, store_option(store_url), known
        ) as display:
            run_interruptible(
                resume_study(
                    name, store, display, more_trials=trials, more_hours=hours, confirm=confirm
                )
            )
        _finish(store, name, as_json=output is Format.JSON)


def _finish(store: Store, name: str, *, as_json: bool) -> None:
    """Print the front; raises `NoFeasibleConfigurationError` if there is none."""
    from tuner.analysis.confirmed_front import confirmed_front
    from tuner.analysis.recommendation.infeasible import nothing_met
    from tuner.report.json_forms import front_json
    from tuner.report.terminal.front_table import show_front

    study, trials = store.study(name), store.trials(name)
    found = confirmed_front(study, trials, store.repeats.of(name))
    if as_json:
        print_json(front_json(found))
    else:
        show_front(stdout_console(), found)
    if not found.front:
        raise NoFeasibleConfigurationError(nothing_met(study, trials, found.slos))
