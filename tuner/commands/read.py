"""What reads the store: `tuner list`, `show`, `recommend`, `export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.options import Format, Name, Output, Slos, StoreUrl
from tuner.commands.output import print_json, store_option
from tuner.errors import UsageError


class RecommendFormat(StrEnum):
    """Formats of a recommendation."""

    TABLE = "table"
    JSON = "json"
    VLLM = "vllm"


def list_all(
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """List the studies in the store."""
    from rich.console import Console

    from tuner.report.json_forms import studies_json
    from tuner.report.study_tables import show_studies
    from tuner.store import Store

    with Store.open(store_url, create=False) as store:
        summaries = store.studies()
    if output is Format.JSON:
        print_json(studies_json(summaries))
    else:
        show_studies(Console(), summaries)


def show(
    name: Name,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Show one study: what it measured with, its trials, its front and what happened."""
    from rich.console import Console

    from tuner.report import json_forms, study_tables
    from tuner.store import Store

    with Store.open(store_url, create=False) as store:
        study, trials, events = store.study(name), store.trials(name), store.events(name)
        repeats = store.repeats.of(name)
    if output is Format.JSON:
        print_json(json_forms.study_json(study, trials, repeats, events))
    else:
        study_tables.show_study(Console(), study, trials, repeats, events)


def recommend_one(
    model: Annotated[
        str | None, typer.Argument(help="Model, or the end of its name; default: the newest.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Take this study.")] = None,
    slo: Slos = None,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Annotated[
        RecommendFormat, typer.Option("--format", help="table, json, or vllm (for --config).")
    ] = RecommendFormat.TABLE,
) -> None:
    """Recommend the configuration that uses the least energy and meets every SLO."""
    from rich.console import Console

    from tuner.report.json_forms import recommendation_json
    from tuner.report.recommend import recommend
    from tuner.report.tables import show_recommendation
    from tuner.report.vllm_config import vllm_config
    from tuner.slo import Slo
    from tuner.store import Store

    bounds = [Slo.parse(text) for text in slo] if slo else None
    with Store.open(store_url, create=False) as store:
        recommendation = recommend(store, model, study, bounds)
    if output is RecommendFormat.JSON:
        print_json(recommendation_json(recommendation))
    elif output is RecommendFormat.VLLM:
        print(vllm_config(recommendation), end="")  # noqa: T201 - the result on stdout
    else:
        show_recommendation(Console(), recommendation, store_option(store_url))


def export(
    name: Name,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV file; - for stdout.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write a Parquet file.")] = None,
    store_url: StoreUrl = DEFAULT_STORE,
) -> None:
    """Export a study, one row per trial."""
    from rich.console import Console

    from tuner.report.export import trial_rows, write_csv, write_parquet
    from tuner.store import Store

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
