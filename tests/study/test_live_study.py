"""Whole studies over HTTP, on the emulator's server and on a real vLLM: crash, kill, resume."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from helpers.studies import CommandLine, wait_for
from optuna.trial import TrialState

from tuner.measurement.outputs import PROBES

EMULATED_SPACE = """
name: emulated
flags:
  max_num_seqs: {type: power_of_two, low: 1, high: 1024}
  gpu_memory_utilization: {type: choice, choices: [0.27, 0.28, 0.285, 0.92]} # little cache in most
"""
REAL_SPACE = """
name: real
fixed:
  flags: {load_format: dummy, skip_tokenizer_init: true, enforce_eager: true, dtype: float32,
          max_model_len: 256, gpu_memory_utilization: 0.1}
  environment: {HF_HUB_OFFLINE: 1, VLLM_CPU_OMP_THREADS_BIND: 0} # the client has a core of its own
flags:
  max_num_seqs: {type: power_of_two, low: 1, high: 128}
  max_num_batched_tokens: {type: power_of_two, low: 256, high: 4096}
environment:
  VLLM_CPU_KVCACHE_SPACE: {type: choice, choices: [1, 900, 901], default: 1} # GiB
"""
CLOCK_SPACE = """
name: clock
device:
  sm_clock_mhz: {type: choice, choices: [900, 1000, 1100, 1200, 1980]}
"""
TRIALS = 6


def kill_in_trial_4_and_resume(tuner: CommandLine, run: list[str], deadline_s: float) -> None:
    process = tuner.start(*run, "--study", "night", "--trials", str(TRIALS), "--yes")
    try:
        wait_for(
            lambda: process.poll() is not None or any(t.number == 4 for t in tuner.trials("night")),
            deadline_s,
        )
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        print(*process.communicate(), tuner.failures("night"))  # seen if the test fails
    kept = {t.number: t for t in tuner.trials("night") if t.measurement or t.failure}
    assert set(kept) == {0, 1, 2, 3}
    assert list(tuner.store_path.parent.glob("*.now"))  # how its load went, for `tuner status`

    resumed = tuner("resume", "night", "--yes", "--format", "json", deadline_s=deadline_s)
    assert resumed.returncode == 0, resumed.stderr
    assert not list(tuner.store_path.parent.glob("*.now*"))
    wait_for(lambda: not tuner.servers("night"), 30)

    trials = tuner.trials("night")
    assert {n: t for n, t in ((t.number, t) for t in trials) if n in kept} == kept  # nothing lost
    done = [t for t in trials if t.measurement or (t.failure and t.failure.kind == "configuration")]
    assert len(done) == TRIALS, tuner.failures("night")
    storage = f"sqlite:///{tuner.store_path}"
    states = [t.state for t in optuna.load_study(study_name="night", storage=storage).trials]
    assert states.count(TrialState.COMPLETE) == TRIALS
    assert TrialState.RUNNING not in states and TrialState.WAITING not in states

    refused = [t for t in trials if t.failure and t.failure.kind == "configuration"]
    assert refused, "no trial met the setting that cannot start"
    for trial in refused:
        assert trial.failure is not None and "memory" in trial.failure.reason
        assert trial.failure.log_path is not None and trial.failure.log_path.is_file()
    answer = json.loads(resumed.stdout)
    on_front = {t["number"] for t in answer["front"]}
    assert on_front, tuner.failures("night")
    assert not on_front & {t.number for t in refused}
    assert "energy" in answer["emulated"]


@pytest.fixture
def tuner(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.mark.night
def test_a_study_on_the_emulators_server_survives_a_kill(tuner: CommandLine) -> None:
    space = tuner.folder / "space.yaml"
    space.write_text(EMULATED_SPACE)
    options = (
        f"run --emulate H100-SXM --live --model Qwen/Qwen3-8B --workload smoke --space {space}"
    )
    slo = ["--slo", "p99_tpot_ms<=100", "--window-s", "1", "--sampler", "random", "--no-confirm"]
    kill_in_trial_4_and_resume(tuner, [*options.split(), *slo], 60)


@pytest.mark.chaos
def test_a_kill_in_the_confirmation_loses_the_repeat_that_ran_and_no_other(
    tuner: CommandLine,
) -> None:
    space = tuner.folder / "space.yaml"
    space.write_text(CLOCK_SPACE)
    options = (
        "run --emulate H100-SXM --live --model Qwen/Qwen3-8B --workload smoke --window-s 0.5 "
        f"--space {space} --study night --trials 2 --sampler random --confirm-repeats 2 "
        "--no-checks"
    )
    process = tuner.start(*options.split())
    try:
        wait_for(lambda: process.poll() is not None or len(tuner.repeats("night")) == 3, 60)
        assert process.poll() is None, process.communicate()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    kept = [r for r in tuner.repeats("night") if r.measurement or r.failure]
    assert [r.number for r in kept] == [0, 1]
    assert json.loads(tuner("list", "--format", "json").stdout)[0]["finished"] is False

    resumed = tuner("resume", "night", "--format", "json", deadline_s=100)
    assert resumed.returncode == 0, resumed.stderr
    wait_for(lambda: not tuner.servers("night"), 30)
    repeats = tuner.repeats("night")
    assert repeats[:2] == kept
    assert not [r for r in repeats if r.state == "running"]
    answer = json.loads(resumed.stdout)
    assert answer["confirmed"] is True
    assert all(t["confirmed"] and t["repeats"] >= 2 for t in answer["front"])
    assert all(t["same_outputs"] == 1.0 for t in answer["front"])  # the emulator's are
    assert len(tuner.trials("night")) == 2  # the budget of trials was spent before
    assert json.loads(tuner("list", "--format", "json").stdout)[0]["finished"] is True


@pytest.mark.vllm
@pytest.mark.skipif("TUNER_VLLM" not in os.environ, reason="TUNER_VLLM names no vllm")
@pytest.mark.timeout(1500)
def test_a_study_on_a_real_vllm_survives_a_kill(tuner: CommandLine) -> None:
    tuner = replace(tuner, comes_first=True)
    space = tuner.folder / "space.yaml"
    space.write_text(REAL_SPACE)
    options = f"run --model {tuner.tiny_model()} --workload smoke --space {space}"
    slo = ["--slo", "p99_tpot_ms<=500", "--window-s", "3", "--sampler", "random", "--no-confirm"]
    kill_in_trial_4_and_resume(tuner, [*options.split(), *slo], 700)


@pytest.mark.vllm
@pytest.mark.skipif("TUNER_VLLM" not in os.environ, reason="TUNER_VLLM names no vllm")
@pytest.mark.timeout(900)
def test_a_real_vllm_answers_the_probe_prompts_on_every_launch(tuner: CommandLine) -> None:
    tuner = replace(tuner, comes_first=True)
    space = tuner.folder / "space.yaml"
    space.write_text(REAL_SPACE)
    options = f"run --model {tuner.tiny_model()} --workload smoke --space {space} --window-s 3"
    done = tuner(
        *options.split(), "--study", "night", "--trials", "1", "--no-checks", deadline_s=800
    )
    assert done.returncode == 0, done.stderr
    # a window in which the client was late is thrown away before anything is asked
    repeats = [r for r in tuner.repeats("night") if r.measurement is not None]
    assert len(repeats) >= 2, tuner.failures("night")
    for repeat in repeats:
        assert repeat.answers is not None, repeat.warnings
        assert len(repeat.answers) == PROBES
        assert all(repeat.answers)
    shown = json.loads(tuner("recommend", "--format", "json").stdout)
    assert shown["confirmed"] and shown["recommended"]["repeats"] >= 2
    assert 0.5 < shown["recommended"]["same_outputs"] <= 1.0
    assert "default with itself" in shown["outputs"]


def test_a_signal_puts_the_trial_back_and_stops_the_server(tuner: CommandLine) -> None:
    options = "run --emulate H100-SXM --live --model Qwen/Qwen3-8B --workload smoke --window-s 20"
    process = tuner.start(*options.split(), "--study", "night", "--trials", "3")
    wait_for(lambda: bool(tuner.trials("night")), 30)
    wait_for(lambda: bool(tuner.servers("night")), 30)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    assert "interrupted by" in err and "Traceback" not in err
    assert tuner.servers("night") == []
    storage = f"sqlite:///{tuner.store_path}"
    states = [t.state for t in optuna.load_study(study_name="night", storage=storage).trials]
    assert states == [TrialState.FAIL, TrialState.WAITING]
