"""Migrations: each older schema comes up to the one that a new store has, or stays as it is."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from helpers.older_stores import differences, take_back
from sqlalchemy import Engine, create_engine, text

from tuner.errors import PreflightError
from tuner.store import Store, migrate
from tuner.store.migrate import require_schema
from tuner.store.schema import SCHEMA_VERSION

OLDER = list(range(1, SCHEMA_VERSION))


def version_of(engine: Engine) -> int | None:
    with engine.connect() as connection:
        return connection.scalar(text("SELECT version FROM tuner_schema"))


def test_a_revision_more_is_a_version_more() -> None:
    scripts = ScriptDirectory(migrate._REVISIONS, version_locations=[migrate._REVISIONS])
    numbers = [script.revision for script in scripts.walk_revisions()]
    assert numbers == [str(n) for n in range(SCHEMA_VERSION, 0, -1)]
    for script in scripts.walk_revisions():
        assert Path(script.path).name.startswith(f"v{int(script.revision):03}_")


@pytest.mark.parametrize("version", OLDER)
def test_every_older_schema_becomes_the_one_of_a_new_store(
    store: Store, path: Path, version: int
) -> None:
    store.close()
    engine = create_engine(f"sqlite:///{path}")
    assert differences(engine) == []
    take_back(engine, version)
    assert differences(engine) != []
    with Store.open(path, create=False) as newer:
        assert [s.identity.name for s in newer.studies()] == ["night"]
    assert differences(engine) == []
    assert version_of(engine) == SCHEMA_VERSION
    engine.dispose()


@pytest.mark.parametrize("version", OLDER)
def test_a_migration_that_fails_leaves_the_store_as_it_was(
    store: Store, path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    engine = create_engine(f"sqlite:///{path}")
    take_back(engine, version)
    before = dump(path)
    upgrade = migrate._upgrade

    def cut_off(*arguments: object) -> None:
        upgrade(*arguments)  # type: ignore[arg-type]
        raise RuntimeError("cut off")

    monkeypatch.setattr(migrate, "_upgrade", cut_off)
    with pytest.raises(RuntimeError, match="cut off"):
        require_schema(engine, "x", create=False)
    engine.dispose()
    assert dump(path) == before


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())


def test_a_killed_migration_leaves_the_store_as_it_was(store: Store, path: Path) -> None:
    store.close()
    engine = create_engine(f"sqlite:///{path}")
    take_back(engine, 1)
    engine.dispose()
    before = dump(path)
    program = """
import os, signal, sys
from tuner.store import Store, migrate
upgrade = migrate._upgrade
def killed(*arguments):
    upgrade(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
migrate._upgrade = killed
Store.open(sys.argv[1], create=False)
"""
    killed = subprocess.run([sys.executable, "-c", program, path], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert dump(path) == before
    with Store.open(path, create=False) as newer:
        assert newer.comparisons.of("night") == []


def test_a_newer_tuner_that_was_first_is_not_taken_back(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.close()
    engine = create_engine(f"sqlite:///{path}")
    take_back(engine, 3)
    # between the look at the version and the lock, a newer tuner migrates
    monkeypatch.setattr(migrate, "_bring_up", newer_first(engine, migrate._bring_up))
    with pytest.raises(PreflightError, match=r"schema 99.*upgrade"):
        require_schema(engine, "x", create=False)
    assert version_of(engine) == 99
    engine.dispose()


def newer_first(engine: Engine, bring_up: object) -> object:
    def both(*arguments: object) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE tuner_schema SET version = 99"))
        bring_up(*arguments)  # type: ignore[operator]

    return both


def test_alembic_is_loaded_for_an_older_store_alone(store: Store, path: Path) -> None:
    store.close()
    program = """
import sys
from tuner.store import Store
Store.open(sys.argv[1], create=True).close()
print("alembic" in sys.modules)
"""

    def is_loaded(at: Path) -> str:
        return subprocess.run(
            [sys.executable, "-c", program, at], check=True, timeout=60, capture_output=True
        ).stdout.decode()

    assert is_loaded(path) == "False\n"
    assert is_loaded(path.with_name("new.db")) == "False\n"
    engine = create_engine(f"sqlite:///{path}")
    take_back(engine, 3)
    engine.dispose()
    assert is_loaded(path) == "True\n"
