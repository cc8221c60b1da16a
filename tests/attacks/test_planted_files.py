"""Files that another user put where a run of root writes: nothing is run, followed or changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from helpers.studies import CommandLine, InProcess

from tuner.doctor.ownership import check_ownership
from tuner.store.lock.file_lock import lock_path

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
STUDY = (
    *("run", "--emulate", "H100-SXM", "--model", "meta-llama/Llama-3.1-8B-Instruct"),
    *("--workload", "chat", "--request-rate", "4", "--space", "power", "--no-confirm"),
    *("--slo", "p99_tpot_ms<=25", "--trials", "1", "--study", "night", "--max-window-s", "40"),
)


@pytest.fixture
def tuner(monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLine]:
    # pytest closes its own folders to other users, in mid-test if another pytest starts
    with TemporaryDirectory(prefix="tuner-attacks-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        monkeypatch.setenv("TUNER_STATE_DIR", str(folder / "state"))
        yield InProcess(folder)


def as_nobody(code: str) -> None:
    """Run Python as another user, who can do what the modes of files let everybody do."""
    forked = os.fork()
    if forked == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            exec(code, {"os": os, "Path": Path})
            os._exit(0)
        except BaseException as error:  # noqa: BLE001
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 0


def test_a_store_folder_that_others_may_write_is_refused(tuner: CommandLine) -> None:
    """Breaks 1 and 2: planted code was run with uid 0, and planted links were followed."""
    results = tuner.folder / "results"
    results.mkdir()
    results.chmod(0o777)
    live = results / "logs" / "night" / "live"
    as_nobody(
        f"live = Path({str(live)!r}); live.mkdir(parents=True)\n"
        "(live / 'sitecustomize.py').write_text('raise SystemExit')"
    )
    ran = tuner(*STUDY)
    assert ran.returncode == 3
    assert f"run `chmod go-w {results}`" in ran.stderr
    assert not tuner.store_path.exists()
    results.chmod(0o755)  # what the message asked for leaves the folder of nobody in it
    ran = tuner(*STUDY)
    assert ran.returncode == 3
    assert f"run `chown root {results / 'logs'}`" in ran.stderr
    fixes = {f.fix for f in check_ownership(str(tuner.store_path))}
    assert fixes == {f"chown root {results / 'logs'}"}
    assert trials_of(tuner) == 0


def trials_of(tuner: CommandLine) -> int:
    return len(tuner.trials("night"))


@pytest.mark.parametrize(
    "name",
    [
        "LOCK",
        "TABLES",
        "tuner.db.measured/RESERVE",
        "logs/night/study.jsonl",
        "tuner.db.measured/night.jsonl",
        "tuner.db",
    ],
)
def test_links_planted_before_are_not_followed(tuner: CommandLine, name: str) -> None:
    """Break 2: seven of seven links were followed, and root's files overwritten."""
    victim = tuner.folder / "victim"
    victim.write_text("root's own")
    victim.chmod(0o600)
    results = tuner.folder / "results"
    results.mkdir()
    results.chmod(0o777)
    reserve = f"tuner.db.measured/night-{sha256(b'night').hexdigest()[:8]}.reserve"
    place = {
        "LOCK": lock_path(tuner.store_path, "night"),
        "TABLES": lock_path(tuner.store_path, "\0tables"),
        "tuner.db.measured/RESERVE": results / reserve,
    }.get(name, results / name)
    as_nobody(
        f"os.umask(0); place = Path({str(place)!r}); place.parent.mkdir(parents=True, exist_ok=1)\n"
        f"place.symlink_to({str(victim)!r})"
    )
    results.chmod(0o755)
    for folder in {place.parent, place.parent.parent} - {results, tuner.folder}:
        os.chown(folder, 0, 0)
        folder.chmod(0o700)
    ran = tuner(*STUDY)
    assert victim.read_text() == "root's own"
    if name != "tuner.db.measured/night.jsonl":  # which no run writes
        assert ran.returncode == 3, ran.stderr
        assert " link" in ran.stderr and "`rm " in ran.stderr
        assert "Traceback" not in ran.stderr


def test_a_report_does_not_go_through_a_link(tuner: CommandLine) -> None:
    """Break 2: `report -o` followed NAME.partial."""
    assert tuner(*STUDY).returncode == 0
    victim, out = tuner.folder / "victim", tuner.folder / "out"
    victim.write_text("root's own")
    out.mkdir()
    out.chmod(0o777)
    as_nobody(f"Path({str(out / '.partial-r.html')!r}).symlink_to({str(victim)!r})")
    assert tuner("report", "night", "-o", str(out / "r.html")).returncode == 0
    assert victim.read_text() == "root's own"
    assert (out / "r.html").stat().st_size > 100_000


def test_nobody_can_read_or_hold_what_a_run_wrote(tuner: CommandLine) -> None:
    """Break 3: any local user could hold a lock that keeps a GPU limited."""
    from tuner.host.locks import locked_folder

    before = os.umask(0o022)
    try:
        assert tuner(*STUDY).returncode == 0
        with locked_folder(tuner.folder / "state" / "runs"):
            pass
    finally:
        os.umask(before)
    made = [p for top in ("results", "state") for p in (tuner.folder / top).rglob("*")]
    assert made
    for path in made:
        assert path.stat().st_mode & 0o077 == 0, path
    lock = tuner.folder / "state" / "runs" / ".lock"
    with pytest.raises(AssertionError):
        as_nobody(f"os.open({str(lock)!r}, os.O_RDONLY)")


def test_a_group_reads_the_results(tuner: CommandLine) -> None:
    assert tuner(*STUDY, "--readable-by", "nogroup").returncode == 0
    for name in ("tuner.db", "logs/night/study.jsonl"):
        as_nobody(f"assert Path({str(tuner.folder / 'results' / name)!r}).read_bytes()")
    unknown = tuner(*STUDY, "--readable-by", "no-such-group")
    assert unknown.returncode == 2
