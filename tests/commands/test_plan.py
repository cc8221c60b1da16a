"""`tuner plan` from the command line: a day from a stored study, its files, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.studies import InProcess

import tuner as api
from tuner.spec.study import spec_from

SPEC = {
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "emulate": "H100-SXM",
    "workload": "chat",
    "space": "power",
    "request_rate": 4,
    "slo": ["p95_tpot_ms<=30", "p95_ttft_ms<=2000"],
    "trials": 1,
    "sampler": "random",
    "window_s": 10,
    "confirm_window_s": 10,
    "study": "night",
}
TASKS = ["--study", "night", "--study", "code"]


@pytest.fixture(scope="module")
def tuner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """A store with a study of two tasks each, whose defaults alone have operating points."""
    folder = tmp_path_factory.mktemp("plan")
    command = InProcess(folder)
    spec = spec_from(None, {**SPEC, "loads": "0.5x"})
    api.run(spec, store=str(command.store_path), yes=True)
    code = spec_from(None, {**SPEC, "workload": "code", "study": "code", "loads": "0.5x"})
    api.run(code, store=str(command.store_path), yes=True)
    bare = spec_from(None, {**SPEC, "study": "bare", "confirm": False})
    api.run(bare, store=str(command.store_path), yes=True)
    yield command


def day(folder: Path, *rates: float, name: str = "day.csv") -> str:
    """A curve of hours, or of four hours each where it is a whole day."""
    step = 4 if len(rates) == 6 else 1
    rows = "".join(f"{hour * step:02d}:00,{rate}\n" for hour, rate in enumerate(rates))
    path = folder / name
    path.write_text("time,requests_per_s\n" + rows)
    return str(path)


def test_a_day_is_planned_proved_and_written(tuner: InProcess, tmp_path: Path) -> None:
    load = day(tmp_path, 2.0, 2.0, 14.0, 3.0, 3.0, 2.0)
    words = ["plan", "--study", "night", "--load", load, "--gpus", "3", "--simulate", "600"]
    files = {
        "--html": tmp_path / "day.html",
        "--timers": tmp_path / "day.cron",
        "--keda": tmp_path / "keda.yaml",
        "--kubernetes": tmp_path / "jobs.yaml",
    }
    for option, path in files.items():
        words += [option, str(path)]
    ran = tuner(*words, "--step", "14400", "--routing", "least-busy", "--format", "json")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    running = [sum(one["running"]) for one in found["intervals"]]
    assert max(running) == running[2] > min(running) > 0
    capacity = found["types"][0]["capacity"]
    for one in found["intervals"]:
        assert sum(one["running"]) * capacity >= one["request_rate"]
    simulation = found["simulation"]
    assert simulation["plan"]["holds"]
    assert simulation["plan"]["needed"] == 0.95
    assert all(hour["attainment"] >= 0.95 for hour in simulation["plan"]["hours"])
    assert simulation["plan"]["energy_j"] < simulation["static"]["energy_j"]
    assert found["saved"] > 0.1
    assert found["emulated"] is True
    for path in files.values():
        assert path.stat().st_size > 100
    assert "systemctl start" in files["--timers"].read_text()
    page = files["--html"].read_text()
    assert "emulated" in page and "<svg" in page


def test_the_table_names_the_hours_and_what_was_simulated(tuner: InProcess, tmp_path: Path) -> None:
    load = day(tmp_path, 2.0, 2.0, 2.0, 2.0, 14.0, 2.0, 2.0, 2.0)
    words = ["plan", "--study", "night", "--load", load, "--gpus", "3", "--step", "3600"]
    ran = tuner(*words, "--simulate", "0")
    assert ran.returncode == 0, ran.stderr
    assert "not proved in simulation, as was asked for" in " ".join(ran.stdout.split())
    assert "03:00" in ran.stdout and "start" in ran.stdout
    budget = tuner(*words, "--simulate", "0", "--power-budget", "0.9kW", "--format", "json")
    assert budget.returncode == 0, budget.stderr
    intervals = json.loads(budget.stdout)["intervals"]
    assert all(one["power_w"] <= 900.0 for one in intervals)
    assert intervals[4]["served_rate"] < 14.0 and intervals[0]["served_rate"] == 2.0


def test_several_tasks_share_the_gpus(tuner: InProcess, tmp_path: Path) -> None:
    chat = day(tmp_path, 2.0, 2.0, 9.0, 3.0, 3.0, 2.0)
    code = day(tmp_path, 1.0, 1.0, 1.0, 1.0, 4.0, 1.0, name="code.csv")
    words = ["plan", *TASKS, "--load", chat, "--load", code, "--gpus", "5", "--step", "14400"]
    words += ["--simulate", "400", "--routing", "least-busy", "--format", "json"]
    files = {name: tmp_path / name for name in ("day.html", "day.cron", "keda.yaml")}
    for option, path in zip(("--html", "--timers", "--keda"), files.values(), strict=True):
        words += [option, str(path)]
    ran = tuner(*words)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    ways = {way["replicas"]: way for way in found["ways"]}
    assert set(ways) == {"own replicas", "shared replicas"}
    assert found["chosen"] == min(ways.values(), key=lambda way: way["energy_j"])["replicas"]
    own = ways["own replicas"]["plans"]
    assert [plan["tasks"] for plan in own] == [["chat"], ["code"]]
    for pair in zip(*(plan["intervals"] for plan in own), strict=True):
        assert sum(sum(one["running"]) for one in pair) <= 5
    (shared,) = ways["shared replicas"]["plans"]
    assert shared["tasks"] == ["chat", "code"]
    for plan in (*own, shared):
        assert plan["simulation"]["plan"]["holds"]
        assert plan["reserve"] >= 0.15  # neither way with less than the other began with
    page = files["day.html"].read_text()
    assert "own replicas" in page and "shared replicas" in page
    assert all(path.stat().st_size > 100 for path in files.values())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--study", "night"], "one study for each load"),
        ([*TASKS, "--study", "bare"], "one study for each load"),
        (["--study", "night", "--study", "night"], "add their loads up"),
        ([*TASKS, "--power-budget", "3kW"], "--power-budget is for one load"),
        ([*TASKS, "--judge", "day.csv"], "--judge is given 1 times"),
        ([*TASKS, "--judge", "short.csv", "--judge", "short.csv"], "a --judge of the same hours"),
        (["--study", "night", "--study", "bare"], "tuner resume bare --loads"),
        ([*TASKS, "--gpus", "1"], "give more --gpus"),
    ],
)
def test_tasks_that_do_not_go_together_are_told_in_one_sentence(
    tuner: InProcess, tmp_path: Path, words: list[str], said: str
) -> None:
    load = day(tmp_path, 2.0, 6.0, 3.0, 3.0)
    short = day(tmp_path, 2.0, 6.0, 3.0, name="short.csv")
    words = [{"day.csv": load, "short.csv": short}.get(word, word) for word in words]
    ran = tuner("plan", "--gpus", "3", "--load", load, "--load", load, "--simulate", "0", *words)
    assert ran.returncode == 2
    assert said in ran.stderr and len(ran.stderr.strip().splitlines()) == 1
    assert ran.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "1"], "give --gpus"),
        (["--gpus", "3", "--study", "bare"], "tuner resume bare --loads 0.25x,0.5x,0.75x,1x"),
        (["--gpus", "3", "--study", "none"], "unknown study 'none'"),
        (["--gpus", "3", "--scale", "0"], "--scale"),
        (["--gpus", "3", "--routing", "random"], "unknown router"),
        (["--gpus", "3", "--load-format", "x"], "unknown format"),
        (["--gpus", "3", "--power-budget", "much"], "write a power like 5kW"),
        (["--gpus", "3", "--step", "1000"], "--step"),
    ],
)
def test_what_cannot_be_planned_is_told_in_one_sentence(
    tuner: InProcess, tmp_path: Path, words: list[str], said: str
) -> None:
    load = day(tmp_path, 2.0, 20.0, 3.0, 3.0)
    if "--study" not in words:
        words = [*words, "--study", "night"]
    ran = tuner("plan", "--load", load, "--step", "3600", "--simulate", "0", *words)
    assert ran.returncode == 2
    assert said in ran.stderr and len(ran.stderr.strip().splitlines()) == 1


def test_a_plan_for_a_day_that_is_not_the_one_it_is_judged_on_is_not_given(
    tuner: InProcess, tmp_path: Path
) -> None:
    load, other = day(tmp_path, 2.0, 3.0), day(tmp_path, 12.0, 12.0, name="other.csv")
    words = ["plan", "--study", "night", "--load", load, "--judge", other, "--gpus", "1"]
    words += ["--step", "3600", "--simulate", "500", "--routing", "least-busy"]
    ran = tuner(*words, "--reserve", "1.2")
    assert ran.returncode == 4
    assert "no plan kept the SLO in simulation" in ran.stderr
    assert ran.stdout == ""
