"""The vLLM executable: where it is, and which version and flags it has."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tuner.errors import PreflightError

# Importing vLLM takes 15 s on two slow cores, minutes on busy ones or a cold network file system.
_ASK_DEADLINE_S = 600.0

_OPTION_LINE = re.compile(r"^ {2}(-\S.*?)(?: {2,}|$)", re.MULTILINE)
_FLAG = re.compile(r"--([a-zA-Z][\w-]*)")


def find_vllm(explicit: str | None, program: str = "vllm") -> tuple[str, ...]:
    """Return the words that start vLLM: `explicit`, else beside this Python, else on the PATH.

    `program` is what is looked for, and the name of its package.
    Raises `PreflightError` saying what to install or to pass.
    """
    if explicit is not None:
        return _explicit_command(explicit)
    beside = Path(sys.executable).parent / program
    if os.access(beside, os.X_OK) and beside.is_file():
        return (str(beside),)
    on_path = shutil.which(program)
    if on_path is None:
        raise PreflightError(
            f"no {program} found beside this Python or on the PATH; install it here "
            f"(pip install {program}) or name the executable of another environment with --vllm"
        )
    return (on_path,)


def _explicit_command(explicit: str) -> tuple[str, ...]:
    try:
        words = [explicit] if Path(explicit).is_file() else shlex.split(explicit)
    except ValueError as error:
        raise PreflightError(f"cannot read the vLLM command '{explicit}': {error}") from None
    program = shutil.which(words[0]) if words else None
    if program is None:
        raise PreflightError(
            f"no executable '{explicit}'; give the path of a `vllm` that can be run"
        )
    return (str(Path(program).absolute()), *words[1:])


def vllm_version(command: tuple[str, ...]) -> str:
    """Return the version that vLLM reports, e.g. `0.32.0+cpu`. Takes as long as its import."""
    words = _ask(command, "--version").split()
    if not words or not words[-1][0].isdigit():
        raise PreflightError(f"{shlex.join(command)} --version answered no version; is it vLLM?")
    return words[-1]


def known_flags(command: tuple[str, ...], *words: str) -> frozenset[str]:
    """Return the flags of this vLLM's `serve` in their Python spelling (`max_num_seqs`).

    `words` stand between `serve` and the question.
    """
    flags = parse_flags(_ask(command, "serve", *words, "--help=all"))
    if "max_num_seqs" not in flags:
        raise PreflightError(
            f"{shlex.join(command)} serve --help=all lists no --max-num-seqs; "
            "is it a vLLM of version 0.11 or later?"
        )
    return flags


def parse_flags(help_text: str) -> frozenset[str]:
    """Return the options that a help text lists; `--no-x` beside `--x` is not one of its own."""
    found = {
        flag.replace("-", "_")
        for options in _OPTION_LINE.findall(help_text)
        for flag in _FLAG.findall(options)
    }
    return frozenset(name for name in found if name.removeprefix("no_") not in found - {name})


def _ask(command: tuple[str, ...], *words: str) -> str:
    asked = shlex.join([*command, *words])
    try:
        answer = subprocess.run(
            [*command, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ASK_DEADLINE_S,
            check=False,
        )
    except OSError as error:
        raise PreflightError(f"cannot run `{asked}`: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise PreflightError(
            f"`{asked}` did not answer in {_ASK_DEADLINE_S:.0f} s; try it by hand"
        ) from error
    if answer.returncode != 0:
        said = answer.stderr.decode(errors="replace").strip().splitlines()
        raise PreflightError(
            f"`{asked}` failed with code {answer.returncode}: {said[-1] if said else 'no message'}"
        )
    return answer.stdout.decode(errors="replace")
