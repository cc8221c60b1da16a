"""`tuner rename`, `tuner delete` and `tuner note`."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from tuner import DEFAULT_STORE
from tuner.commands.shared.completion import complete_study
from tuner.commands.shared.console import stderr_console
from tuner.commands.shared.options import Name, StoreUrl
from tuner.errors import UsageError

app = typer.Typer()

_INTERRUPTED = 128 + signal.SIGINT

_First = Annotated[
    str,
    typer.Argument(
        help="The study; left out, it is the store's only one.",
        metavar="[STUDY]",
        autocompletion=complete_study,
    ),
]


@app.command()
def rename(
    study: _First,
    new: Annotated[str | None, typer.Argument(help="The new name.", metavar="NEW")] = None,
    store_url: StoreUrl = DEFAULT_STORE,
) -> None:
    """Rename a study.

    Example: tuner rename llama-3.1-8b-instruct-chat before-the-upgrade
    """
    from tuner.api.editing import rename_study
    from tuner.api.studies import named_study

    old, new_name = (study, new) if new is not None else (named_study(None, store_url), study)
    rename_study(old, new_name, store_url)
    _say(f"study {old} is {new_name} now")


@app.command()
def delete(
    name: Name = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store_url: StoreUrl = DEFAULT_STORE,
) -> None:
    """Delete a study with its measurements and its measurement log; the logs of its servers stay.

    Example: tuner delete llama-3.1-8b-instruct-chat --yes
    """
    import tuner
    from tuner.api.editing import delete_study
    from tuner.api.studies import named_study

    chosen = named_study(name, store_url)
    trials = len(tuner.load_study(chosen, store_url).rows)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("deleting cannot be undone; say --yes where nobody can be asked")
        question = f"delete study {chosen} with its {trials} trials? There is no way back"
        try:
            is_sure = typer.confirm(question, err=True)
        except typer.Abort:  # Ctrl-C, or the terminal is gone
            _say("\nnothing was deleted")
            raise typer.Exit(_INTERRUPTED) from None
        if not is_sure:
            _say("nothing was deleted")
            return
    delete_study(chosen, store_url)
    _say(f"deleted study {chosen}")


@app.command()
def note(
    study: _First,
    text: Annotated[str | None, typer.Argument(help="The note.", metavar="TEXT")] = None,
    store_url: StoreUrl = DEFAULT_STORE,
) -> None:
    """Write a note on a study, which `tuner list`, `show` and the report show; '' removes it.

    Example: tuner note llama-3.1-8b-instruct-chat 'before the driver update'
    """
    from tuner.api.editing import note_study
    from tuner.api.studies import named_study

    chosen, written = (study, text) if text is not None else (named_study(None, store_url), study)
    note_study(chosen, written, store_url)
    _say(f"noted on study {chosen}" if written.strip() else f"removed the note of study {chosen}")


def _say(message: str) -> None:
    stderr_console().print(message, highlight=False, soft_wrap=True)
