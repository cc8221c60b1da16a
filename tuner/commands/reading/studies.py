"""`tuner list`, `show`, `recommend` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.api.names import EXPORTS
from tuner.commands.reading.short_lived import ShortLived
from tuner.commands.shared.completion import complete_study
from tuner.commands.shared.console import stderr_console, stdout_console
from tuner.commands.shared.options import Format, Name, Output, Slos, StoreUrl
from tuner.commands.shared.output import (
    print_json,
    print_nothing_to_deploy,
    print_text,
    store_option,
    until_reader_gone,
)
from tuner.errors import UsageError

app = typer.Typer()

RECOMMEND_FORMATS = ("table", "json", *EXPORTS)


def _recommend_format(text: str) -> str:
    """Return a format's name; raises Typer's error for a name that is none."""
    if text not in RECOMMEND_FORMATS:
        known = ", ".join(f"'{name}'" for name in RECOMMEND_FORMATS)
        raise typer.BadParameter(f"'{text}' is not one of {known}.")
    return text


def _complete_format(incomplete: str) -> list[str]:
    return [name for name in RECOMMEND_FORMATS if name.startswith(incomplete)]


@app.command("list", cls=ShortLived)
def list_all(
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """List the studies in the store.

    Example: tuner list --store results/tuner.db
    """
    import tuner
    from tuner.report.json_forms import studies_json
    from tuner.report.terminal.study_tables import show_studies

    summaries = tuner.list_studies(store_url)
    if output is Format.JSON:
        print_json(studies_json(summaries))
    else:
        show_studies(stdout_console(), summaries)


@app.command(cls=ShortLived)
def show(
    name: Name = None,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Show one study: its testbed, trials, front and events.

    Example: tuner show my-study --format json
    """
    import tuner
    from tuner.api.studies import comparison_points, named_study

    name = named_study(name, store_url)
    study = tuner.load_study(name, store_url)
    stored = study.identity, study.rows, study.repeats, study.events
    points = comparison_points(name, store_url)
    if output is Format.JSON:
        from tuner.report.json_forms import comparison_json, study_json

        print_json(study_json(*stored) | {"comparison_points": comparison_json(points)})
    else:
        from tuner.report.terminal.comparison_table import show_comparison
        from tuner.report.terminal.study_tables import show_study

        show_study(stdout_console(), *stored)
        show_comparison(stdout_console(), points, study.confirmed_front.baseline, study.identity)


@app.command("recommend", cls=ShortLived)
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
    from tuner.api.studies import deployment_text, recommend_compared
    from tuner.report.price import Price

    cost = None if price is None else Price(price, currency)
    recommendation, points = recommend_compared(
        model, study=study, slo=slo, trial=trial, store=store_url
    )
    if output == "table":
        from tuner.report.terminal.comparison_table import show_comparison
        from tuner.report.terminal.recommendation_table import show_recommendation

        show_recommendation(stdout_console(), recommendation, store_option(store_url), cost)
        default, identity = recommendation.baseline, recommendation.study
        show_comparison(stdout_console(), points, default, identity)
    elif output == "json":
        from tuner.report.json_forms import comparison_json, recommendation_json

        shown = recommendation_json(recommendation, cost)
        print_json(shown | {"comparison_points": comparison_json(points)})
    elif recommendation.is_default and not recommendation.is_asked_for:
        print_nothing_to_deploy(recommendation.study.name)
    else:
        print_text(deployment_text(recommendation, output))


@app.command(cls=ShortLived)
def export(
    name: Name = None,
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
    from tuner.api import tables
    from tuner.api.studies import named_study

    if csv is None and parquet is None and requests is None:
        raise UsageError("nothing to write: give --csv FILE, --parquet FILE or --requests FILE")
    name = named_study(name, store_url)
    rows = tables.trial_rows(name, store_url)
    sent = [] if requests is None else tables.request_rows(name, store_url)
    console = stderr_console()
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
