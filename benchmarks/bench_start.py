"""How long the command line takes to start, beside the library that it is made with.

    python benchmarks/bench_start.py

CPU time of whole processes, the least of several: other work on the machine changes it little.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 5
TUNER = (sys.executable, "-m", "tuner")


def least(command: tuple[str, ...], **environment: str) -> tuple[float, float]:
    """Return the least CPU time and the least wall time of a command, s."""
    cpu_s, wall_s = [], []
    for _ in range(REPEATS):
        before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(
            command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall_s.append(time.monotonic() - began_s)
        cpu_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(cpu_s), min(wall_s)


def main() -> None:
    """Print each command's time, and as a multiple of importing Typer with its help."""
    from tuner.store import Store

    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "tuner.db")
        Store.open(store, create=True).close()
        pressed = {"COMP_WORDS": "tuner show ", "COMP_CWORD": "2", "TUNER_STORE": store}
        complete = (
            sys.executable,
            "-c",
            "import sys; sys.argv[0] = 'tuner'; import tuner.cli; tuner.cli.app(prog_name='tuner')",
        )
        rows = {
            "import typer, typer.rich_utils": least(
                (sys.executable, "-c", "import typer, typer.rich_utils")
            ),
            "import tuner": least((sys.executable, "-c", "import tuner")),
            "tuner --help": least((*TUNER, "--help")),
            "the tabulator after `tuner show`": least(
                complete, _TUNER_COMPLETE="complete_bash", **pressed
            ),
            "tuner list (an empty store)": least((*TUNER, "list", "--store", store)),
        }
    base_s, _ = rows["import typer, typer.rich_utils"]
    print(f"{'':34} {'CPU s':>7} {'wall s':>7} {'x typer':>8}")
    for name, (cpu_s, wall_s) in rows.items():
        print(f"{name:34} {cpu_s:7.2f} {wall_s:7.2f} {cpu_s / base_s:8.2f}")


if __name__ == "__main__":
    main()
