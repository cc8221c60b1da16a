"""A soak: what `tuner run` takes after 2,000 trials on one study, and with three studies at once.

Runs the real command in virtual time, samples the memory and descriptors of each process, and the
sizes of the store, the measurement log, the study's log and the backups. Fails if the memory after
the last trial is more than a tenth above that after a quarter of them, if a trial is missing, or if
the store is not sound.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

STUDY = (
    *("run", "--emulate", "H100-SXM", "--model", "Qwen/Qwen3-0.6B", "--workload", "smoke"),
    *("--request-rate", "2", "--window-s", "20", "--sampler", "random", "--no-confirm"),
)
STEPS = 8  # rows of the table
POLL_S = 0.5
MOST_GROWTH = 1.1
MIB = 2.0**20


@dataclass(frozen=True, slots=True)
class Sample:
    """One run at one moment."""

    trials: int
    rss_mib: float
    descriptors: int
    threads: int
    store_mib: float
    log_mib: float
    study_log_mib: float
    backups_mib: float


@dataclass(slots=True)
class Soaked:
    """One study under way."""

    name: str
    store: Path
    process: subprocess.Popen[bytes]
    samples: list[Sample] = field(default_factory=list)
    lines: int = 0
    read_bytes: int = 0

    def sample(self, trials: int) -> None:
        """Note what it takes now, if it still runs."""
        process = Path(f"/proc/{self.process.pid}")
        lines = (process / "status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines if ":" in line)
        if "VmRSS" not in status:
            return  # it has just ended
        self.samples.append(
            Sample(
                trials,
                int(status["VmRSS"].split()[0]) / 1024,
                len(list((process / "fd").iterdir())),
                int(status["Threads"]),
                size_mib(self.store),
                size_mib(*self.log_files()),
                size_mib(*(self.store.parent / "logs" / self.name).glob("study.jsonl*")),
                size_mib(*self.store.parent.glob("*.backup-*")),
            )
        )

    def log_files(self) -> list[Path]:
        """Return its measurement log."""
        folder = self.store.with_name(f"{self.store.name}.measured")
        return list(folder.glob(f"{self.name}*.jsonl"))

    def measured(self) -> int:
        """How many results are in its log: a line each, and one for the study."""
        for path in self.log_files():
            with path.open("rb") as file:
                file.seek(self.read_bytes)
                new = file.read()
            self.read_bytes += len(new)
            self.lines += new.count(b"\n")
        return max(0, self.lines - 1)


def size_mib(*paths: Path) -> float:
    """Return the size of the files that are there."""
    return sum(path.stat().st_size for path in paths if path.exists()) / MIB


def soak(folder: Path, studies: int, trials: int) -> list[Soaked]:
    """Run that many studies at once on one store, to their ends."""
    store = folder / f"{studies}.db"
    runs = []
    for number in range(studies):
        name = f"soak{number}"
        words = (*STUDY, "--trials", str(trials), "--study", name, "--store", str(store))
        with (folder / f"{studies}-{name}.txt").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tuner", *words], stdout=output, stderr=output
            )
        runs.append(Soaked(name, store, process))
    while any(run.process.poll() is None for run in runs):
        for run in runs:
            measured = run.measured()
            due = (len(run.samples) + 1) * trials // STEPS
            # the last row a little before the end, while there is a process to look at
            is_due = len(run.samples) < STEPS and run.process.poll() is None
            if is_due and measured >= min(due, trials - max(trials // 100, 1)):
                run.sample(measured)
        time.sleep(POLL_S)
    return runs


def problems(runs: list[Soaked], trials: int) -> list[str]:
    """Return what is wrong after the runs."""
    found = []
    for run in runs:
        if run.process.returncode != 0:
            found.append(f"{run.name} ended with {run.process.returncode}")
        if run.measured() < trials:
            found.append(f"{run.name} has {run.measured()} of {trials} results")
        quarter, last = run.samples[len(run.samples) // 4], run.samples[-1]
        if last.rss_mib > MOST_GROWTH * quarter.rss_mib:
            found.append(f"{run.name} grew from {quarter.rss_mib:.0f} to {last.rss_mib:.0f} MiB")
    check = [sys.executable, "-m", "tuner", "store", "check", "--store", str(runs[0].store)]
    checked = subprocess.run(check, capture_output=True, text=True, check=False)
    if checked.returncode != 0:
        found.append(checked.stdout + checked.stderr)
    return found


def show(runs: list[Soaked], elapsed_s: float) -> None:
    """Print a table of Markdown."""
    print(f"\n{len(runs)} at once, {elapsed_s:.0f} s; sizes in MiB\n")
    print(
        "| study | trials | RSS, MiB | descriptors | threads | store | log | study log | backups |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for run in runs:
        for s in run.samples:
            print(
                f"| {run.name} | {s.trials} | {s.rss_mib:.0f} | {s.descriptors} | {s.threads} "
                f"| {s.store_mib:.1f} | {s.log_mib:.1f} | {s.study_log_mib:.1f} "
                f"| {s.backups_mib:.1f} |"
            )
        first, last = run.samples[0], run.samples[-1]
        per = 1024 / (last.trials - first.trials)
        print(
            f"\n{run.name}, a trial: store {per * (last.store_mib - first.store_mib):.1f} KiB"
            f"{' (of all studies)' if len(runs) > 1 else ''}, "
            f"log {per * (last.log_mib - first.log_mib):.1f} KiB, study log "
            f"{per * (last.study_log_mib - first.study_log_mib):.1f} KiB\n",
            flush=True,
        )


def main() -> int:
    """Print the tables; return 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=2000, help="of one study")
    parser.add_argument("--each", type=int, default=200, help="of each of three studies at once")
    parser.add_argument("--folder", type=Path, default=None, help="Where to build the stores.")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=asked.folder))
    found = []
    try:
        for studies, trials in ((3, asked.each), (1, asked.trials)):
            began_s = time.monotonic()
            runs = soak(folder, studies, trials)
            show(runs, time.monotonic() - began_s)
            found += problems(runs, trials)
    finally:
        shutil.rmtree(folder)
    for problem in found:
        print(f"PROBLEM: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
