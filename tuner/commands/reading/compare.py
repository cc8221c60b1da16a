"""`tuner compare import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.completion import complete_study
from tuner.commands.shared.console import stdout_console
from tuner.commands.shared.options import Format, Output, StoreUrl
from tuner.commands.shared.output import print_json

app = typer.Typer(no_args_is_help=True, help="What other tools measured, beside a study.")


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(help="A file of `vllm bench serve --save-result`, or a sweep."),
    ],
    study: Annotated[
        str, typer.Option(help="The study to show it beside.", autocompletion=complete_study)
    ],
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Show a result of `vllm bench serve` beside a study's default, in `show` and `recommend`.

    Files of SGLang's bench_serving and TensorRT-LLM's benchmark_serving are known too. Such a
    result has no energy and is never on the front. Importing the same file again replaces it.

    Example: tuner compare import openai-infqps.json --study my-study
    """
    import tuner
    from tuner.api.studies import import_comparison
    from tuner.report.terminal.comparison_table import comparison_json, show_comparison

    points = import_comparison(file, study, store_url)
    if output is Format.JSON:
        print_json(comparison_json(points))
    else:
        found = tuner.load_study(study, store_url)
        show_comparison(stdout_console(), points, found.confirmed_front.baseline, found.identity)
