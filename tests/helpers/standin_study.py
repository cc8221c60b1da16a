"""A whole `tuner run` on the stand-in for NVML, which it takes for real GPUs.

The command line in a process of its own, its guardian and the leases are real; `vllm` emulates, on
the very GPU that the stand-in shows: it obeys the limits, and its power is what NVML reads.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from helpers.guarding import is_gone
from helpers.nvml_standin import Standin
from helpers.studies import CommandLine
from tuner.catalog.gpu import load_gpu
from tuner.devices.leases.lease_book import LeaseBook
from tuner.emulator.device_file import Device, Settings
from tuner.emulator.http.served_devices import create_devices
from tuner.errors import TunerError
from tuner.host.process import Owner
from tuner.servers.guardian.run_records import registered
from tuner.servers.processes import stop_tagged, tagged_processes
from tuner.store import Store, StudySummary

FOUND_W = 610.0  # neither the default nor within what the study sets
SPACE = """
name: kills
flags:
  max_num_seqs: {type: power_of_two, low: 8, high: 256, default: 256}
device:
  power_limit_w: {type: choice, choices: [300, 350, 400, 700]}
  sm_clock_mhz: {type: choice, choices: [1200, 1500, 1980]}
"""
VLLM = """#!/bin/sh
case "$*" in
--version) echo 0.32.0 ;;
*--help=all*)
  printf '  --%s N  as in vLLM\\n' max-num-seqs max-num-batched-tokens gpu-memory-utilization \
    max-model-len ;;
*) exec {python} -m tuner.emulator "$@" ;;
esac
"""


@dataclass(frozen=True)
class StandinStudy:
    """One machine with a GPU that somebody has limited to `FOUND_W`."""

    tuner: CommandLine
    standin: Standin
    gpu: Device
    state: Path
    seen_tags: set[str] = field(default_factory=set)

    def run_words(self, *more: str) -> list[str]:
        store = ("--store", self.tuner.database) if self.tuner.database else ()
        words = (
            f"run --model Qwen/Qwen3-8B --workload smoke --vllm {self.tuner.folder / 'vllm'} "
            "--window-s 0.3 --sampler random --study night --no-checks"
        )
        return [*words.split(), *store, *more]

    def space(self) -> list[str]:
        """Words that ask for device knobs."""
        path = self.tuner.folder / "kills.yaml"
        path.write_text(SPACE)
        return ["--space", str(path)]

    def whole_run(self) -> list[str]:
        """Words of a run that changes the GPU all the time."""
        return self.run_words(*self.space(), "--allow-gpu-settings", "--trials", "20")

    def has_launched(self) -> bool:
        """Say whether a server has been started."""
        return (self.tuner.folder / "results" / "logs" / "night" / "baseline.log").exists()

    def is_stored(self) -> bool:
        """Say whether the study can be resumed, maybe before its first trial."""
        if self.tuner.database:
            return "night" in {found.identity.name for found in studies(self.tuner.database)}
        if not self.tuner.store_path.exists():
            return False
        with closing(sqlite3.connect(self.tuner.store_path)) as database:
            query = "SELECT count(*) FROM tuner_studies WHERE name = 'night'"
            return bool(database.execute(query).fetchone()[0])

    def owner(self) -> Owner | None:
        """The run that is under way, as it has written itself down."""
        owners = registered(self.state)
        self.seen_tags.update(owner.run_tag for owner in owners)
        return owners[0] if owners else None

    def guardian_pid(self) -> int | None:
        """The guardian of the run, once it watches."""
        log = next(self.tuner.folder.rglob("guardian.log"), None)
        lines = log.read_text().splitlines() if log else []
        watching = [line.split()[2] for line in lines if " watches over " in line]
        return int(watching[-1]) if watching else None

    def is_as_found(self) -> bool:
        device = self.standin.device(0)
        obeyed = self.gpu.settings == Settings(FOUND_W, None)
        return obeyed and device.limit_w == FOUND_W and device.locked_mhz is None

    def left(self) -> list[str]:
        """Everything that a run has left behind."""
        device = self.standin.device(0)
        found = [] if self.is_as_found() else [f"{device.limit_w:g} W, {device.locked_mhz} MHz"]
        found += [str(entry.path) for entry in LeaseBook(self.state).entries()]
        found += [str(owner) for owner in registered(self.state)]
        tags = self.run_tags()
        tagged = [p for p in tagged_processes() if p.run_tag in tags]
        return found + [f"{p.name} of {p.run_tag}" for p in tagged]

    def run_tags(self) -> set[str]:
        self.seen_tags.update(owner.run_tag for owner in registered(self.state))
        self.seen_tags.update(self.tuner.run_tags("night"))
        return self.seen_tags

    def settings(self) -> int:
        """How often anything of the GPU was set."""
        names = ["SetPowerManagementLimit", "SetGpuLockedClocks", "ResetGpuLockedClocks"]
        return sum(self.standin.device(0).calls(f"nvmlDevice{name}") for name in names)

    def assert_store_is_whole(self) -> None:
        if self.tuner.store_path.exists() and not self.tuner.database:
            with closing(sqlite3.connect(self.tuner.store_path)) as database:
                assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def studies(database: str) -> list[StudySummary]:
    """The studies in a store, maybe before it is one."""
    try:
        with Store.open(database, create=False) as store:
            return store.studies()
    except TunerError:
        return []


@contextmanager
def standin_study(folder: Path, database: str = "") -> Iterator[StandinStudy]:
    """Make the machine; whatever the test leaves running on it is ended."""
    gpus = create_devices(folder / "gpus", load_gpu("H100-SXM"), 1)
    standin = Standin.create(folder / "nvml.state", n_devices=1)
    standin.device(0).emulate(gpus)
    standin.device(0).set(limit_mw=round(FOUND_W * 1e3))
    script = folder / "vllm"
    script.write_text(VLLM.format(python=sys.executable))
    script.chmod(0o755)
    state = folder / "state"
    environment = {
        **standin.environment(),
        "TUNER_STATE_DIR": str(state),
        "TUNER_EMULATED_GPU": "H100-SXM",
        "TUNER_EMULATED_DEVICES": str(gpus.path),
    }
    line = CommandLine(folder, environment, database=database)
    made = StandinStudy(line, standin, gpus.devices[0], state)
    try:
        yield made
    finally:
        standin.mend()
        standin.device(0).mend()
        for tag in made.run_tags():
            stop_tagged(tag, grace_s=0)
        guardian = made.guardian_pid()
        if guardian is not None and not is_gone(guardian):
            os.kill(guardian, signal.SIGKILL)
