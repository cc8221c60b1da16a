"""`tuner compare`: studies side by side, and other tools' results beside one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tuner import DEFAULT_STORE
from tuner.commands.shared.completion import complete_study
from tuner.commands.shared.console import stderr_console, stdout_console
from tuner.commands.shared.options import Format, Output, StoreUrl, StudyOption
from tuner.commands.shared.output import print_json


class _StudiesOrCommand(TyperGroup):
    """A group whose words are studies, unless the first one is a command's name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the hidden command before the studies."""
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [_STUDIES, *args]
        return super().parse_args(ctx, args)


_STUDIES = "studies"
app = typer.Typer(
    name="compare",
    cls=_StudiesOrCommand,
    no_args_is_help=True,
    help="Show studies side by side, with intervals: tuner compare STUDY STUDY... Two models, "
    "GPUs, workloads or vLLM versions, or last month and today. FILE.db or FILE.db:STUDY is in "
    "another store. Options: tuner compare studies --help.",
)


@app.command(_STUDIES)
def studies(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Studies; FILE.db or FILE.db:STUDY for one in another store.",
            metavar="STUDY...",
            autocompletion=complete_study,
        ),
    ],
    html: Annotated[
        Path | None, typer.Option("-o", "--output", help="Also write it as one HTML file.")
    ] = None,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Show what several studies recommend, side by side; differences are from the first.

    Example: tuner compare studies last-month today -o both.html; the word `studies` may be left out
    """
    from tuner.api.studies import compare_studies, write_side_by_side
    from tuner.report.terminal.side_by_side.table import show_side_by_side, side_by_side_json

    found = compare_studies(names, store_url)
    if output is Format.JSON:
        print_json(side_by_side_json(found))
    else:
        show_side_by_side(stdout_console(), found)
    if html is not None:
        size = write_side_by_side(found, html)
        console = stderr_console()
        console.print(f"wrote {html} ({size / 1e3:.0f} kB)", highlight=False, soft_wrap=True)


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(help="A file of `vllm bench serve --save-result`, or a sweep."),
    ],
    study: StudyOption = None,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Show a result of `vllm bench serve` beside a study's default, in `show` and `recommend`.

    Files of SGLang's bench_serving and TensorRT-LLM's benchmark_serving are known too. Such a
    result has no energy and is never on the front. Importing the same file again replaces it.

    Example: tuner compare import openai-infqps.json --study my-study
    """
    import tuner
    from tuner.api.studies import import_comparison, named_study
    from tuner.report.json_forms import comparison_json
    from tuner.report.terminal.comparison_table import show_comparison

    study = named_study(study, store_url)
    points = import_comparison(file, study, store_url)
    if output is Format.JSON:
        print_json(comparison_json(points))
    else:
        found = tuner.load_study(study, store_url)
        show_comparison(stdout_console(), points, found.confirmed_front.baseline, found.identity)
