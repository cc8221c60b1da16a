"""Commands that read a store: what they load, and that they leave the interpreter as it was."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import typer
from typer.testing import CliRunner

from tuner.commands.reading.short_lived import ShortLived
from tuner.store import Store


def test_garbage_is_collected_again_after_the_command() -> None:
    app = typer.Typer()

    @app.command(cls=ShortLived)
    def look() -> None:
        typer.echo(f"collects: {gc.isenabled()}")

    assert CliRunner().invoke(app, []).stdout == "collects: False\n"
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_failure() -> None:
    app = typer.Typer()

    @app.command(cls=ShortLived)
    def fail() -> None:
        raise ValueError

    assert isinstance(CliRunner().invoke(app, []).exception, ValueError)
    assert gc.isenabled()


def test_numpy_starts_no_thread_of_its_own() -> None:
    program = """
import os
import typer
from tuner.commands.reading.short_lived import ShortLived

app = typer.Typer()

@app.command(cls=ShortLived)
def look() -> None:
    import numpy
    print(len(os.listdir("/proc/self/task")))

app()
"""
    environment = {n: v for n, v in os.environ.items() if n != "OPENBLAS_NUM_THREADS"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        timeout=60,
        capture_output=True,
        env=environment,
    )
    assert ran.stdout == b"1\n"


def test_reading_loads_neither_the_orm_nor_what_a_study_is_started_with(tmp_path: Path) -> None:
    store = tmp_path / "tuner.db"
    Store.open(store, create=True).close()
    program = """
import sys
from tuner.analysis.recommendation import recommend
from tuner.store import Store
with Store.open(sys.argv[1], create=False) as store:
    assert store.studies() == []
slow = ("sqlalchemy.orm", "optuna", "tuner.spec.study", "tuner.catalog.gpu", "yaml", "pydantic")
print([name for name in slow if name in sys.modules])
"""
    loaded = subprocess.run(
        [sys.executable, "-c", program, store], check=True, timeout=60, capture_output=True
    )
    assert loaded.stdout.decode() == "[]\n"
