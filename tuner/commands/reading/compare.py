"""`tuner compare import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.completion import complete_study
from tuner.commands.shared.options import Format, Output, StoreUrl
from tuner.commands.shared.output import print_json, stdout_console

app = typer.Typer(no_args_is_help=True, help="What other tools measured, beside a study.")


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="The file that `vllm bench serve --save-result` wrote.")
    ],
    study: Annotated[
        str, typer.Option(help="The study to show it beside.", autocompletion=complete_study)
    ],
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Show a result of `vllm bench serve` beside a study's default, in `show` and `recommend`.

    It has no energy and is never on the front. Importing the same file again replaces it.

    Example: tuner compare import openai-infqps.json --study my-study
    """
    from tuner.analysis.confirmed_front import confirmed_front
    from tuner.report.terminal.comparison_table import comparison_json, show_comparison
    from tuner.store import Store
    from tuner.store.imports.bench_serve import read_results

    points = read_results(file)
    with Store.open(store_url, create=False) as store:
        identity = store.study(study)
        for point in points:
            store.comparisons.add(study, point)
        found = confirmed_front(identity, store.trials(study), store.repeats.of(study))
    if output is Format.JSON:
        print_json(comparison_json(points))
    else:
        show_comparison(stdout_console(), points, found.baseline, identity)
