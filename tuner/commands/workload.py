"""`tuner workload show`, `preview` and `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner.api.names import TimeUnit, TraceFormat
from tuner.commands.shared.completion import complete_workload
from tuner.commands.shared.console import stderr_console, stdout_console
from tuner.commands.shared.options import Format, Output
from tuner.commands.shared.output import print_json
from tuner.errors import UsageError

WorkloadName = Annotated[
    str, typer.Argument(help="Shipped name or YAML file.", autocompletion=complete_workload)
]
app = typer.Typer(
    name="workload",
    no_args_is_help=True,
    help="Show, preview and import workloads: the requests sent to the server.",
)


@app.command("list")
def list_all(output: Output = Format.TABLE) -> None:
    """List the shipped workloads.

    Example: tuner workload list
    """
    from tuner.api.workloads import shipped

    found = {workload.name: workload.spec.description for workload in shipped()}
    if output is Format.JSON:
        print_json(found)
        return
    for name, description in found.items():
        stdout_console().print(f"{name}: {' '.join(description.split())}", highlight=False)


@app.command("show")
def show(
    name: WorkloadName,
    output: Output = Format.TABLE,
) -> None:
    """Show a workload: its load, hash, lengths and sources.

    Example: tuner workload show chat
    """
    from tuner.api.workloads import summarized
    from tuner.report.terminal.workload_tables import show_workload, workload_json

    workload, summary = summarized(name)
    if output is Format.JSON:
        print_json(workload_json(workload, summary))
    else:
        show_workload(stdout_console(), workload, summary)


@app.command("preview")
def preview(
    name: WorkloadName,
    requests: Annotated[
        int, typer.Option(min=1, max=100_000, help="Number of requests to draw.")
    ] = 2000,
) -> None:
    """Draw histograms of lengths and arrivals.

    Example: tuner workload preview reasoning --requests 5000
    """
    from tuner.api.workloads import summarized
    from tuner.report.terminal.workload_tables import preview_workload

    preview_workload(stdout_console(), *summarized(name, requests))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="The trace; .gz is unpacked.")],
    out: Annotated[Path, typer.Option(help="New YAML file; the trace goes beside it.")],
    form: Annotated[
        TraceFormat | None, typer.Option("--format", help="Format of the trace.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="The file is a list of prompts for images or videos (.txt, .jsonl, .csv, .tsv); "
            "sizes and steps are of this workload, such as image."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N requests.")] = None,
    time_unit: Annotated[
        TimeUnit | None,
        typer.Option(help="Unit of the times; default: the format's, or as they look."),
    ] = None,
    block_tokens: Annotated[
        int | None,
        typer.Option(min=1, max=2**20, help="Tokens of a block with a hash id; likewise."),
    ] = None,
    skip_invalid: Annotated[
        bool,
        typer.Option(
            "--skip-invalid", help="Leave out and count rows that failed or hold other work."
        ),
    ] = False,
) -> None:
    """Make a workload of a trace: Azure, BurstGPT, Mooncake, ShareGPT, or JSONL with prompts.

    Examples: tuner workload import trace.csv.gz --format azure --out mine.yaml --limit 10000;
    tuner workload import prompts.tsv --like image --out mine.yaml
    """
    from tuner.api.workloads import Reading, import_prompts, import_workload

    if (form is None) == (like is None):
        raise UsageError("say --format for a trace, or --like for a list of prompts")
    if like is not None:
        import_prompts(file, like, out, limit)
        _told("the prompts", out)
        return
    assert form is not None
    reading = Reading(time_unit, block_tokens, skip_invalid)
    workload = import_workload(file, form, out, limit, reading)
    assert workload.facts is not None
    console = stderr_console()
    for note in reading.notes():
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    _told(f"{workload.facts.rows} requests", out)


def _told(what: str, out: Path) -> None:
    stderr_console().print(
        f"wrote {what} to {out}; look at them with `tuner workload preview {out}`",
        highlight=False,
        soft_wrap=True,
    )
