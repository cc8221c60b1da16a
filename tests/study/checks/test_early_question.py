"""`tuner run` stops after the default if the request looks like a mistake, and `--yes` goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.studies import InProcess

import tuner
from tuner.errors import DoubtfulRequestError

MODEL = ["--emulate", "H100-SXM", "--model", "Qwen/Qwen3-8B", "--workload", "smoke"]
SHORT = ["--window-s", "6", "--no-confirm", "--sampler", "random", "--trials", "3"]
EMULATED = [*MODEL, *SHORT, "--study", "night"]
MISTAKES = [
    (("--concurrency", "4", "--slo", "p99_tpot_ms<=0.05"), "did you mean 50?"),
    (("--concurrency", "4", "--slo", "p99_tpot_ms<=25000"), "too wide to rule anything out"),
    (
        (
            "--emulate",
            "L40S",
            "--workload",
            "chat",
            "--request-rate",
            "40",
            "--slo",
            "p99_tpot_ms<=100",
        ),
        "the default cannot be measured at this load",
    ),
]


@pytest.mark.parametrize(("words", "says"), MISTAKES)
def test_a_mistake_stops_the_run_after_the_default(
    tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    command = InProcess(tmp_path)
    ran = command("run", *EMULATED, *words)
    assert ran.returncode == 5, ran.stderr
    assert says in ran.stderr and "`tuner resume night --yes`" in ran.stderr
    assert len(ran.stderr.strip().splitlines()[-1].split("tuner: ")) == 2
    assert [t.number for t in command.trials("night")] == [0]
    again = command("resume", "night")
    assert again.returncode == 5 and says in again.stderr
    command("resume", "night", "--yes")
    numbers = [t.number for t in command.trials("night")]
    assert numbers == [0, 1, 2]
    assert command("resume", "night", "--trials", "1").returncode in (0, 4)  # it is asked once


def test_yes_runs_to_the_end(tmp_path: Path) -> None:
    command = InProcess(tmp_path)
    assert command("run", *EMULATED, *MISTAKES[1][0], "--yes").returncode == 0
    assert len(command.trials("night")) == 3


def test_the_api_raises_a_typed_error_and_keeps_the_study(tmp_path: Path) -> None:
    store = str(tmp_path / "s.db")
    spec = tuner.StudySpec(
        model="Qwen/Qwen3-8B",
        workload="smoke",
        emulate="H100-SXM",
        concurrency=4,
        slos=(tuner.Slo.parse("p99_tpot_ms<=0.05"),),
        trials=2,
        min_window_s=6.0,
        max_window_s=6.0,
        confirm=False,
        sampler="random",
        study="night",
    )
    with pytest.raises(DoubtfulRequestError, match="by far"):
        tuner.run(spec, store=store)
    assert len(tuner.resume("night", store=store, yes=True).trials) == 2


def test_a_study_of_loads_is_not_asked_about(tmp_path: Path) -> None:
    command = InProcess(tmp_path)
    ran = command("run", *EMULATED, "--space", "load", "--slo", "p99_tpot_ms<=25000")
    assert ran.returncode == 0, ran.stderr
