"""Store checks: sound, of this schema version, and not locked by another run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import URL

from tuner.analysis.cards.figures import card_figures
from tuner.errors import OperatorNeededError, TunerError
from tuner.host.finding import Finding, ok, problem, warning
from tuner.store import Store, TrialState
from tuner.store.address import check_file, file_of, parse_address
from tuner.store.lock.file_lock import lock_path


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def check_store(store_url: str, *, is_alive: Callable[[int], bool] = _is_alive) -> list[Finding]:
    """Check a store's file from end to end, and its unfinished studies.

    Creates nothing; migrates an older store, as every command does.
    """
    url = parse_address(store_url)
    path = file_of(url)
    if path is not None and not path.exists():
        return [ok("store", f"there is no store at {path} yet; the first run makes one")]
    try:
        if path is not None:
            check_file(path, create=False)
        with Store.open(store_url, create=False) as store:
            studies = [s.name for s in store.identities()]
            outliers = [found for name in studies for found in _outlier_cards(store, name)]
            interrupted = [name for name in studies if _has_running(store, name)]
    except TunerError as error:
        return [problem("store", str(error), _fix(url, error))]
    many = f"{len(studies)} {'study' if len(studies) == 1 else 'studies'}"
    found = [ok("store", f"{store.shown} is sound and holds {many}")]
    held = {} if path is None else {name: _holder(path, name) for name in studies}
    running = {name: pid for name, pid in held.items() if pid is not None and is_alive(pid)}
    found += [
        warning("store lock", f"study '{name}' is being run by process {pid}", f"ps -p {pid}")
        for name, pid in running.items()
    ]
    found += [
        warning(
            "store trials",
            f"a run of study '{name}' was cut off in a trial",
            f"tuner resume {name}",
        )
        for name in interrupted
        if name not in running
    ]
    return [*found, *outliers]


def _outlier_cards(store: Store, name: str) -> list[Finding]:
    figures = card_figures(store.trials(name), store.repeats.probes(name))
    return [
        warning(
            "cards",
            f"card {one.card} of study '{name}' is an outlier: {one.outlier}; it is left out",
            "nvidia-smi -q -d PERFORMANCE,POWER,TEMPERATURE",
        )
        for one in figures
        if one.outlier is not None
    ]


def _has_running(store: Store, name: str) -> bool:
    return any(trial.state is TrialState.RUNNING for trial in store.trials(name))


def _holder(store: Path, study: str) -> int | None:
    """Return the pid in a study's lock file; None if there is none."""
    try:
        first = lock_path(store, study).read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return None
    return int(first) if first.isdecimal() else None


def _fix(url: URL, error: TunerError) -> str:
    path = file_of(url)
    if path is None:
        port = "" if url.port is None else f" -p {url.port}"
        return f"pg_isready -h {url.host or 'localhost'}{port}"
    if isinstance(error, OperatorNeededError):  # damaged
        return f"tuner store rebuild NEW.db --store {path}"
    return "tuner doctor --store ANOTHER.db"
