"""A study on several cards as a process, killed and resumed, and what it must not lose."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from helpers.alive import runs_processes
from helpers.studies import wait_for
from tuner.store import ProbeKind, Store
from tuner.store.log.log_records import LoggedResult
from tuner.store.log.measurement_log import read_log

_INTERRUPTED = "stopped while this trial ran"


def looking_every(seconds: float) -> tuple[str, str]:
    """Return the start of a run whose fleet looks so often for lost and new workers."""
    return (
        "-c",
        f"from tuner.study.workers import fleet; fleet.REJOIN_S = {seconds}; "
        "from tuner.cli import main; main()",
    )


class CardsNight:
    """One study in a folder of its own, whose processes are known by their state folder."""

    def __init__(
        self,
        folder: Path,
        words: str,
        environment: Mapping[str, str],
        start: tuple[str, str] = ("-m", "tuner"),
    ) -> None:
        """`start` are the words by which Python starts a tuner."""
        self._start = start
        self.words = f"{words} --study s --yes"
        self.environment = environment
        self.store = folder / "s.db"
        self.state = folder / "state"
        self.log = folder / "out.log"

    def start(self, words: str | None = None) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as out:
            return subprocess.Popen(
                [
                    sys.executable,
                    *self._start,
                    *(words or self.words).split(),
                    "--store",
                    str(self.store),
                ],
                env={**self.environment, "TUNER_STATE_DIR": str(self.state)},
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
            )

    def processes(self, word: str = "") -> list[psutil.Process]:
        """Return the study's processes whose command line has a word."""
        return runs_processes(self.state, word)

    def say(self, line: str) -> None:
        """Write a line into the log of the runs."""
        with self.log.open("a") as out:
            print(line, file=out)

    def logged(self) -> int:
        """Return how many results are in the measurement log."""
        return sum(len(path.read_bytes().splitlines()) for path in self._logs())

    def _logs(self) -> list[Path]:
        return list(self.store.with_name(f"{self.store.name}.measured").glob("*.jsonl"))

    def await_results(
        self,
        run: subprocess.Popen[bytes],
        at_least: int,
        most_s: float,
        meanwhile: Callable[[], object] = bool,
    ) -> None:
        """Wait until a run has logged so many results; one that ends before shows why."""
        self._await(run, lambda: self.logged() >= at_least, most_s, meanwhile)
        assert run.poll() is None, self._last_words()

    def code_of(
        self, run: subprocess.Popen[bytes], most_s: float, meanwhile: Callable[[], object] = bool
    ) -> int:
        """Return the exit code of a run; one that does not end in time shows where it was."""
        self._await(run, lambda: False, most_s, meanwhile)
        return run.wait()

    def _await(
        self,
        run: subprocess.Popen[bytes],
        condition: Callable[[], bool],
        most_s: float,
        meanwhile: Callable[[], object],
    ) -> None:
        """Wait for a condition or the run's end, and do something now and then meanwhile."""

        def has_come() -> bool:
            meanwhile()
            return run.poll() is not None or condition()

        try:
            wait_for(has_come, most_s, self._last_words)
        except AssertionError:
            run.kill()
            raise

    def finish(self) -> None:
        """Resume until the study is finished; a run may end because its guardian was killed."""
        for _ in range(5):
            run = self.start("resume s --yes" if self.is_stored() else None)
            if self.code_of(run, 600) == 0:
                return
        raise AssertionError(self.log.read_text())

    def _last_words(self) -> str:
        """Return the runs' log and the end of each log of a guardian or a server."""
        logs = sorted(
            self.store.parent.glob("logs/**/*.log"), key=lambda path: path.stat().st_mtime
        )
        ends = [f"{path.name}: ...{path.read_text()[-1_500:]}" for path in logs[-6:]]
        return "\n".join([self.log.read_text(), *ends])

    def is_stored(self) -> bool:
        if not self.store.exists():
            return False
        with Store.open(self.store, create=False) as store:
            return any(s.identity.name == "s" for s in store.studies())


def require_nothing_lost(night: CardsNight, trials_asked: int) -> None:
    with Store.open(night.store, create=False) as store:
        trials, probes = store.trials("s"), store.repeats.probes("s")
        assert store.study("s").finished_at is not None
        (path,) = store.log_path("s", night.state).parent.glob("*.jsonl")
    records = [r.record for r in read_log(path) if isinstance(r.record, LoggedResult)]
    logged = [r for r in records if r.repeat is None]
    numbers = [r.number for r in logged]
    assert len(numbers) == len(set(numbers))  # each trial was measured once
    interrupted = {
        t.number for t in trials if t.failure is not None and _INTERRUPTED in t.failure.reason
    }
    ended = {t.number for t in trials if t.measurement is not None or t.failure is not None}
    assert set(numbers) == ended - interrupted  # nothing measured is lost, or measured again
    assert len(numbers) >= trials_asked
    assert not [t for t in trials if t.state == "running"]
    assert len({t.owner.card for t in trials}) > 1
    assert all(p.kind is ProbeKind.CARD for p in probes)
