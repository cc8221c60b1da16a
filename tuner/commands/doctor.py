"""`tuner doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.console import stderr_console, stdout_console
from tuner.commands.shared.options import Format, Output, StoreUrl, Vllm
from tuner.commands.shared.output import print_json
from tuner.errors import PreflightError

app = typer.Typer()


@app.command()
def doctor(
    vllm: Vllm = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="The port that a run would use (default: a free one)."),
    ] = None,
    store_url: StoreUrl = DEFAULT_STORE,
    output: Output = Format.TABLE,
) -> None:
    """Check whether this machine can run a study; show what is missing and how to fix it.

    Changes nothing. Exit code 3 if something prevents a run.

    Example: tuner doctor --vllm ~/vllm/bin/vllm
    """
    from tuner.api.machine import examine, prevents_a_run
    from tuner.report.terminal.findings_table import findings_json, show_findings

    with stderr_console().status("checking; vLLM may take a minute to answer"):
        findings = examine(store_url, vllm=vllm, port=port)
    if output is Format.JSON:
        print_json(findings_json(findings))
    else:
        show_findings(stdout_console(), findings)
    if problems := prevents_a_run(findings):
        checks = ", ".join(dict.fromkeys(problem.check for problem in problems))
        raise PreflightError(f"a run is not possible as it is ({checks}); fix what is shown above")
