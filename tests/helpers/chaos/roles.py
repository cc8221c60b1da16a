"""Kills of every process that a night has, at seeded instants, until its budget is spent."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from helpers.chaos.forks import POLL_S, Forked, ForkServer
from helpers.chaos.harness import LONGEST_S, MORTAL, Night, night_in
from helpers.chaos.mortal_tuner import PHASES
from helpers.guarding import is_gone
from helpers.postgres_server import start, stop
from helpers.studies import wait_for

ROLES = ("tuner", "engine", "tuner and guardian", "guardian", "NVML process")
DATABASE_ROLES = ("database", "database's connections", "tuner and database")
GOES_ON_AFTER = ("engine", "database", "database's connections")
COMMANDS = {"engine": "tuner.emulator", "NVML process": "tuner.devices.nvidia.agent"}
ENDS_S = 200.0  # on a machine that does a lot besides
AWAY_S = 1.5


@dataclass
class RolesNight:
    """One night and its present tuner. `kills` counts them by role and phase."""

    night: Night
    forks: ForkServer
    chance: random.Random
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    _tuner: Forked | None = None
    _engine_killed_after: int = -1

    @property
    def database(self) -> str:
        return self.night.machine.tuner.database

    def kill_until_done(self, most: int) -> None:
        """Kill each role in each phase, in a drawn order, `most` times or until the night ends."""
        pairs = list(itertools.product(ROLES + DATABASE_ROLES * bool(self.database), PHASES))
        while self.kills.total() < most:
            tuner = self._tuner or self._start()
            role, phase = self.chance.choice(pairs)
            if not self._came_to("measure" if phase == "restore" else phase, tuner):
                break  # it is over
            self._kill(role, phase, tuner)
        self._await_end(self._tuner or self._start(), (0,))
        self.night.kills = self.kills.total()
        self.night.assert_complete()

    def _kill(self, role: str, phase: str, tuner: Forked) -> None:
        """Kill that role's process an instant after the phase began, if there is one then."""
        is_ended = phase == "restore"
        if is_ended:
            tuner.send_signal(signal.SIGTERM)
        time.sleep(self.chance.uniform(0.0, LONGEST_S[phase]))
        if self._strike(role, tuner):
            self.kills[role, phase] += 1
            is_ended |= role not in GOES_ON_AFTER
        elif is_ended:
            role = "nobody"
            self.night.terminations += 1
        if is_ended:
            codes = (0, 143) if role == "nobody" else (-signal.SIGKILL, 0, 5, 143)
            self._await_end(tuner, codes, is_clean=role != "tuner and guardian")

    def _strike(self, role: str, tuner: Forked) -> bool:
        """Kill that role's process; say whether there is one now."""
        if tuner.poll() is not None:
            return False
        match role:
            case "database's connections":
                cut_connections(self.database)
                return True
            case "database" | "tuner and database":
                stop(self.database)
                if role.startswith("tuner"):
                    tuner.kill()
                time.sleep(self.chance.uniform(0.0, AWAY_S))
                start(self.database)
                return True
            case "engine" if self._engine_killed_after == (stored := self._stored()):
                return False  # the same point twice would be its configuration's fault
            case "engine":
                self._engine_killed_after = stored
        pids = self._pids(role, tuner)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def _pids(self, role: str, tuner: Forked) -> list[int]:
        if role in COMMANDS:
            children = psutil.Process(tuner.pid).children(recursive=True)
            found = [child.pid for child in children if COMMANDS[role] in command_of(child)]
            return found and [self.chance.choice(found)]
        guardian = self.night.machine.guardian_pid()
        living = [] if guardian is None or is_gone(guardian) else [guardian]
        pids = {"guardian": living, "tuner": [tuner.pid]}.get(role, [tuner.pid, *living])
        return self.chance.sample(pids, len(pids))

    def _start(self) -> Forked:
        line = self.night.line()
        words = self.night.words()
        self._tuner = self.forks.start(words, line.folder, line.mortal_environment())
        return self._tuner

    def _came_to(self, phase: str, tuner: Forked) -> bool:
        """Wait until the phase begins once more; False if the tuner ends before that."""
        line = f'{{"at": "{phase}"}}\n'
        before = self._lines(line)
        end_s = time.monotonic() + ENDS_S
        while self._lines(line) == before:
            if tuner.poll() is not None:
                return False
            assert time.monotonic() < end_s, f"it does not come to {phase}: {tuner.err.read_text()}"
            time.sleep(POLL_S)
        return True

    def _lines(self, line: str) -> int:
        journal = self.night.journal
        return journal.read_text().count(line) if journal.exists() else 0

    def _stored(self) -> int:
        return self._lines('{"stored": ')

    def _await_end(self, tuner: Forked, codes: tuple[int, ...], *, is_clean: bool = True) -> None:
        """Wait for the tuner's end and its guardian's; nothing is left then but by both killed."""
        _, errors = tuner.communicate(timeout=ENDS_S)
        self._tuner = None
        assert tuner.returncode in codes, f"{tuner.returncode}: {errors}"
        assert "Traceback" not in errors, errors
        guardian = self.night.machine.guardian_pid()
        if guardian is not None:
            wait_for(lambda: is_gone(guardian), ENDS_S)
        if is_clean:
            self.night.assert_clean()


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def cut_connections(url: str) -> None:
    """End them from inside, as an administrator or a proxy does."""
    engine = create_engine(url.replace("postgresql", "postgresql+psycopg", 1))
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    with suppress(DBAPIError), engine.connect() as connection:
        connection.execute(text(query))
    engine.dispose()


@contextmanager
def roles_night(folder: Path, seed: int, trials: int, database: str = "") -> Iterator[RolesNight]:
    forks = ForkServer(MORTAL)
    try:
        with night_in(folder, trials, database) as night:
            yield RolesNight(night, forks, random.Random(seed))
    finally:
        forks.close()
