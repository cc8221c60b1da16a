"""Consoles of the commands: they print data as it is, less what would steer the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from tuner.commands.shared.output import ReaderGoneError

if TYPE_CHECKING:
    from rich.console import Console


def stdout_console() -> Console:
    """Return the console for results; it raises `ReaderGoneError` if its reader is gone."""
    return _console(stderr=False)


def stderr_console() -> Console:
    """Return the console for progress and notes."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console
    from rich.segment import Segment

    from tuner.api.texts import plain_text

    class PlainConsole(Console):
        """Reads no markup, and filters every text on its way to the terminal."""

        def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(plain_text(text), style)

        def on_broken_pipe(self) -> None:
            if not stderr:
                raise ReaderGoneError from None
            super().on_broken_pipe()

    file = cast(TextIO, _Notes(sys.stderr)) if stderr else None
    return PlainConsole(file=file, stderr=stderr, markup=False, emoji=False)


class _Notes:
    """Stderr that may go away: after a terminal was closed, what is begun is still put back."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
