"""A night on a machine in software, and what must hold however often its tuner is killed."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.trial import TrialState

from helpers.chaos.mortal_tuner import PHASES, SILENCE_S, Plan
from helpers.guarding import is_gone, kill
from helpers.standin_study import StandinStudy, standin_study
from helpers.studies import CommandLine, let_come_first, wait_for
from tuner.store import Store
from tuner.store.upkeep.checks import check_studies

MORTAL = Path(__file__).with_name("mortal_tuner.py")
FAULTY = MORTAL.with_name("faulty_vllm.py")
SPACE = """
name: chaos
flags:
  max_num_seqs: {type: choice, choices: [16, 32, 64, 128], default: 64}
device:
  power_limit_w: {type: choice, choices: [300, 350, 700]}
  sm_clock_mhz: {type: choice, choices: [1200, 1980]}
"""
ON_A_CPU = """
fixed:
  flags: {load_format: dummy, skip_tokenizer_init: true, enforce_eager: true, dtype: float32,
          max_model_len: 256, gpu_memory_utilization: 0.1}
  environment: {HF_HUB_OFFLINE: 1, VLLM_CPU_OMP_THREADS_BIND: 0, VLLM_CPU_KVCACHE_SPACE: 1}
"""
TRIALS = 24  # every point of the space, the baseline for one of them
# How long after the beginning of a phase the kill comes, s: the phase's own length and some more.
LONGEST_S = {"ask": 0.1, "launch": 2.0, "measure": 1.0, "tell": 0.15, "restore": 0.7}
SETTERS = [
    f"nvmlDevice{name}"
    for name in ("SetPowerManagementLimit", "SetGpuLockedClocks", "ResetGpuLockedClocks")
]
KILLS = 15  # in a night: each costs about one trial, so that there are trials for all of them
GUARDIAN_S = 60.0


@dataclass(frozen=True)
class MortalCommandLine(CommandLine):
    """`tuner` that is killed as `plan` says."""

    plan: Plan = field(default_factory=lambda: Plan(""))

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(MORTAL), *words],
            cwd=self.folder,
            env=self.mortal_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self.comes_first:
            let_come_first(process.pid)
        return process

    def mortal_environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "COLUMNS": "160",
            **self.environment,
            "CHAOS": self.plan.to_text(),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }


@dataclass
class Night:
    """One study.

    `kills` is how often its tuner was killed so far, `terminations` how often it ended by SIGTERM
    before the kill that was to come while it cleaned up, `options` are more of its words,
    `comes_first` is as in `CommandLine`.
    """

    machine: StandinStudy
    trials: int = TRIALS
    options: tuple[str, ...] = ()
    deadline_s: float = 300.0
    comes_first: bool = False
    kills: int = 0
    terminations: int = 0
    killed_in: Counter[str] = field(default_factory=Counter)

    @property
    def store(self) -> Path | str:
        return self.machine.tuner.database or self.machine.tuner.store_path

    @property
    def journal(self) -> Path:
        return self.machine.tuner.folder / "journal.jsonl"

    def run(self, plan: Plan | None = None) -> tuple[int, str]:
        """Begin the study, or go on with it; return the exit code and the messages."""
        process = self.start(plan)
        try:
            _, errors = process.communicate(timeout=self.deadline_s)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
            raise AssertionError(f"not ended after {self.deadline_s:g} s:\n{errors}") from None
        return process.returncode, errors

    def start(self, plan: Plan | None = None) -> subprocess.Popen[str]:
        return self.line(plan).start(*self.words())

    def line(self, plan: Plan | None = None) -> MortalCommandLine:
        plan, tuner = plan or Plan(str(self.journal)), self.machine.tuner
        return MortalCommandLine(tuner.folder, tuner.environment, self.comes_first, plan=plan)

    def words(self) -> list[str]:
        """Return the words that begin the study, or go on with it."""
        if self.machine.is_stored():
            database = self.machine.tuner.database
            words = ["resume", "night", "--no-confirm", "--yes"]
            return [*words, "--store", database] if database else words
        limits = (
            *("--trials", str(self.trials), "--no-confirm"),
            *("--slo", "p99_tpot_ms<=1000", "--yes"),
        )
        return self.machine.run_words(
            *self.space(), "--allow-gpu-settings", *limits, *self.options, "--objective",
            "energy_per_output_token_j", "--objective", "output_throughput_tok_s",
        )  # fmt: skip

    def be_served_with(self, fault: str, *, always: bool = False) -> None:
        """Have every second server misbehave, or each of them."""
        script = self.machine.tuner.folder / "vllm"
        which = "all" if always else script.with_name("launches")
        words = f"{FAULTY} {fault} {which}"
        script.write_text(script.read_text().replace("-m tuner.emulator", words))

    def be_served_by(self, vllm: str) -> None:
        """Have a real vLLM on a CPU, which must not take the stand-in's GPU for one of its own."""
        folder = self.machine.tuner.folder
        hidden = "unset LD_LIBRARY_PATH NVML_STANDIN_STATE"
        (folder / "vllm").write_text(f'#!/bin/sh\n{hidden}\nexec {vllm} "$@"\n')
        (folder / "real.yaml").write_text(SPACE + ON_A_CPU)
        model, space = str(self.machine.tuner.tiny_model()), str(folder / "real.yaml")
        self.options = ("--model", model, "--space", space, "--window-s", "2")
        self.machine.tuner.environment[SILENCE_S] = "20"  # a real one may wait for its core
        self.deadline_s = 900.0
        self.comes_first = True

    def await_measurements(self, process: subprocess.Popen[str], at_least: int = 1) -> None:
        """Wait until so many trials are measured while the night goes on."""

        def are_there() -> bool:
            return self.measured() >= at_least

        wait_for(lambda: process.poll() is not None or are_there(), 200)
        assert process.poll() is None, process.communicate()

    def measured(self) -> int:
        rows = self.machine.tuner.trials("night")
        return sum(row.measurement is not None for row in rows)

    def evaluations(self) -> int:
        """How many evaluations began so far."""
        if not self.journal.exists():
            return 0
        return self.journal.read_text().count('"began"')

    def space(self) -> list[str]:
        path = self.machine.tuner.folder / "chaos.yaml"
        path.write_text(SPACE)
        return ["--space", str(path)]

    def kill_once(self, chance: random.Random, phase: str) -> bool:
        """Run until the kill; say whether it came before the study was done."""
        occurrence, delay_s = chance.choice((1, 1, 1, 1, 2)), chance.uniform(0.0, LONGEST_S[phase])
        plan = Plan(str(self.journal), phase, occurrence, delay_s)
        code, errors = self.run(plan)
        if code != -signal.SIGKILL:
            assert code in (0, 143), errors  # done, or put back before the kill came
            self.terminations += code == 143
            return False
        self.kills += 1
        self.killed_in[phase] += 1
        guardian = self.machine.guardian_pid()
        if guardian is not None:
            if chance.random() < 0.25 and not is_gone(guardian):
                kill(guardian)  # nobody is left to clean up but the next run
                return True
            wait_for(lambda: is_gone(guardian), GUARDIAN_S)
            self.assert_clean()
        return True

    def assert_clean(self) -> None:
        """No process, no lease, no limit is left; the store is whole."""
        assert self.machine.left() == []
        self.machine.assert_store_is_whole()

    def assert_complete(self, *, retries: int = 0) -> None:
        """The whole budget was measured, nothing of it was lost, and little of it twice.

        `retries` is how many evaluations faults may have cost besides those of kills.
        """
        self.assert_clean()
        rows = {t.number: t for t in self.machine.tuner.trials("night")}
        lines = [json.loads(line) for line in self.journal.read_text().splitlines()]
        stored = {line["stored"]: line["metrics"] for line in lines if "stored" in line}
        for number, metrics in stored.items():
            measurement = rows[number].measurement
            assert measurement is not None, f"trial {number} is lost"
            assert dict(measurement.metrics) == metrics
        measured = [n for n, row in rows.items() if row.measurement is not None]
        assert len(measured) == self.trials, self.machine.tuner.failures("night")
        knobs = [json.dumps(rows[n].configuration.knobs(), sort_keys=True) for n in measured]
        assert len(set(knobs)) == len(knobs), "a point is measured twice"
        assert not [row for row in rows.values() if row.state == "running"]
        with Store.open(self.store, create=False) as store:
            told = optuna.load_study(study_name="night", storage=store.optuna_storage()).trials
            found = check_studies(store, self.machine.state)  # the measurement log beside it
        assert not [finding.message for finding in found if finding.is_problem]
        assert {t.number for t in told if t.state is TrialState.COMPLETE} == set(measured)
        assert not [t for t in told if t.state in (TrialState.RUNNING, TrialState.WAITING)]
        began = sum("began" in line for line in lines)
        ended = self.kills + self.terminations
        why = f"{began} evaluations, {ended} ended early; {self.machine.tuner.failures('night')}"
        assert began <= self.trials + ended + retries, why

    def tried_again(self) -> int:
        """How many evaluations a fault of the machine cost, such as a client that was late."""
        with Store.open(self.store, create=False) as store:
            return sum(event.kind in ("retry", "waiting") for event in store.events("night"))

    def front(self) -> list[tuple[str, dict[str, float]]]:
        """The final front: configurations and their objectives."""
        from tuner.analysis.outcomes import front_of
        from tuner.spec.objective import Objective

        with Store.open(self.store, create=False) as store:
            study, trials = store.study("night"), store.trials("night")
        objectives = [Objective.parse(text) for text in study.objectives]
        found = front_of(trials, (), objectives)
        return sorted(
            (
                json.dumps(t.configuration.knobs(), sort_keys=True),
                {o.metric: t.measurement.metrics[o.metric] for o in objectives},
            )
            for t in found
            if t.measurement is not None
        )


@contextmanager
def night_in(folder: Path, trials: int = TRIALS, database: str = "") -> Iterator[Night]:
    with standin_study(folder, database) as machine:
        for name in SETTERS:  # so that some kills fall between what is written down and what is set
            machine.standin.device(0).delay(name, 0.05)
        yield Night(machine, trials)


def kill_until_done(night: Night, seed: int) -> None:
    """Kill the tuner `KILLS` times, in each phase in turn, then let it spend its budget."""
    chance = random.Random(seed)
    order = list(PHASES)
    chance.shuffle(order)
    kill_in(night, chance, itertools.islice(itertools.cycle(order), KILLS))
    night.assert_complete()


def kill_in(night: Night, chance: random.Random, phases: Iterable[str]) -> None:
    """Kill the tuner once in each of the phases, then let it spend its budget."""
    for phase in phases:
        while not night.kill_once(chance, phase):  # it was over before the kill came
            assert night.measured() < night.trials, f"only {night.kills} kills fit into the night"
    code, errors = night.run()
    assert code == 0, errors
