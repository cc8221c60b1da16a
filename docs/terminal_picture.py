"""Run a command in a pseudo-terminal and save what it shows as an SVG: the README's pictures.

Usage: python docs/terminal_picture.py docs/demo.svg tuner recommend --store results/demo.db
COLUMNS=60 makes a narrow one.
"""

from __future__ import annotations

import os
import pty
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = int(os.environ.get("COLUMNS", "104"))


def shown_by(command: list[str]) -> str:
    """Return everything that the command wrote to its terminal."""
    os.environ |= {"COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    written = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 4096)
        written.extend(data)
        return data

    pty.spawn(command, read)
    return written.decode().replace("\r\n", "\n")


def main() -> None:
    """Write the picture."""
    target, *command = sys.argv[1:]
    console = Console(record=True, width=WIDTH, file=Path(os.devnull).open("w"))  # noqa: SIM115
    console.print(Text(f"$ {' '.join(command)}", style="bold"))
    console.print(Text.from_ansi(shown_by(command)))
    console.save_svg(target, title="tuner")


main()
