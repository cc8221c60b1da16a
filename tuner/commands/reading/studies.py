"""`tuner list`, `show`, `recommend` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.completion import complete_study
from tuner.commands.shared.options import Format, Name, Output, Slos, StoreUrl
from tuner.commands.shared.output import (
    print_json,
    print_text,
    stdout_console,
    store_option,
    until_reader_gone,
)
from tuner.errors import UsageError
from tuner.report.exports.export import EXPORTS

RECOMMEND_FORMATS = ("table", "json", *EXPORTS)


def _recommend_format(text: str) -> str:
    """Return a format's name; raises Typer's error for a name that is none."""
    if text not in RECOMMEND_FORMATS:
        known = ", ".join(f"'{name}'" for name in RECOMMEND_FORMATS)
        raise typer.BadParameter(f"'{text}' is not one of {known}.")
    return text


def _complete_format(incomplete: str) -> list[str]:
    return [name for name in RECOMMEND_FORMATS if name.startswith(incomplete)]


def list_all(
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """List the studies in the store.

    Example: tuner list --store results/tuner.db
    """
    from tuner.report.json_forms import studies_json
    from tuner.report.terminal.study_tables import show_studies
    from tuner.store import Store

    with Store.open(store_url, create=False) as store:
        summaries = store.studies()
    if output is Format.JSON:
        print_json(studies_json(summaries))
    else:
        show_studies(stdout_console(), summaries)


def show(
    name: Name,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Show one study: its testbed, trials, front and events.

    Example: tuner show my-study --format json
    """
    from tuner.analysis.confirmed_front import confirmed_front
    from tuner.report import json_forms
    from tuner.report.terminal import study_tables
    from tuner.report.terminal.comparison_table import comparison_json, show_comparison
    from tuner.store import Store

    with Store.open(store_url, create=False) as store:
        study, trials, events = store.study(name), store.trials(name), store.events(name)
        repeats, points = store.repeats.of(name), store.comparisons.of(name)
    if output is Format.JSON:
        shown = json_forms.study_json(study, trials, repeats, events)
        print_json(shown | {"comparison_points": comparison_json(points)})
    else:
        study_tables.show_study(stdout_console(), study, trials, repeats, events)
        default = confirmed_front(study, trials, repeats).baseline
        show_comparison(stdout_console(), points, default, study)


def recommend_one(
    model: Annotated[
        str | None, typer.Argument(help="Model, or the end of its name; default: the only one.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Recommend from this study.", autocompletion=complete_study)
    ] = None,
    slo: Slos = None,
    trial: Annotated[
        int | None, typer.Option(min=0, help="Show or export this trial instead.")
    ] = None,
    price: Annotated[float | None, typer.Option(help="Price of energy, per kWh.")] = None,
    currency: Annotated[str, typer.Option(help="Currency of --price.")] = "EUR",
    store_url: StoreUrl = DEFAULT_STORE,
    output: Annotated[
        str,
        typer.Option(
            "--format",
            help="table to read, json for programs, or the configuration of a deployment tool.",
            parser=_recommend_format,
            metavar=f"[{'|'.join(RECOMMEND_FORMATS)}]",
            autocompletion=_complete_format,
        ),
    ] = "table",
) -> None:
    """Recommend the configuration that uses the least energy and meets every SLO.

    Another --slo filters the same measurements. Examples: tuner recommend Llama-3.1-8B-Instruct
    --price 0.30; tuner recommend --format systemd > vllm.service
    """
    from tuner.analysis.recommendation.recommend import recommend
    from tuner.report.price import Price
    from tuner.report.terminal.comparison_table import comparison_json, show_comparison
    from tuner.slo import Slo
    from tuner.store import Store

    bounds = [Slo.parse(text) for text in slo] if slo else None
    cost = None if price is None else Price(price, currency)
    with Store.open(store_url, create=False) as store:
        recommendation = recommend(store, model, study, bounds, trial)
        points = store.comparisons.of(recommendation.study.name)
    if output == "table":
        from tuner.report.terminal.recommendation_table import show_recommendation

        show_recommendation(stdout_console(), recommendation, store_option(store_url), cost)
        default, identity = recommendation.baseline, recommendation.study
        show_comparison(stdout_console(), points, default, identity)
    elif output == "json":
        from tuner.report.json_forms import recommendation_json

        shown = recommendation_json(recommendation, cost)
        print_json(shown | {"comparison_points": comparison_json(points)})
    else:
        from tuner.report.exports.deployment import deployment
        from tuner.report.exports.export import load_export

        print_text(load_export(output)(deployment(recommendation)))


def export(
    name: Name,
    csv: Annotated[
        Path | None, typer.Option(help="Write a CSV file, one row per trial; - for stdout.")
    ] = None,
    parquet: Annotated[Path | None, typer.Option(help="The same as a Parquet file.")] = None,
    requests: Annotated[
        Path | None,
        typer.Option(help="Write one row per request: FILE.parquet, or any other for CSV."),
    ] = None,
    store_url: StoreUrl = DEFAULT_STORE,
) -> None:
    """Export a study, one row per trial or per request.

    Example: tuner export NAME --csv night.csv --requests requests.parquet
    """
    from rich.console import Console

    from tuner.report import frames as tables
    from tuner.store import Store

    if csv is None and parquet is None and requests is None:
        raise UsageError("nothing to write: give --csv FILE, --parquet FILE or --requests FILE")
    with Store.open(store_url, create=False) as store:
        rows = tables.trial_rows(store.study(name), store.trials(name), store.repeats.of(name))
        sent = [] if requests is None else tables.request_rows(store, name)
    console = Console(stderr=True)
    for path, write, what, found in (
        (csv, tables.write_csv, "trials", rows),
        (parquet, tables.write_parquet, "trials", rows),
        (requests, tables.writer_for(requests), "requests", sent),
    ):
        if path == Path("-"):
            with until_reader_gone():
                write(found, Path("/dev/stdout"))
        elif path is not None:
            write(found, path)
            console.print(f"wrote {len(found)} {what} to {path}", highlight=False)
