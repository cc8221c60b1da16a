"""The command line as users meet it: results, exit codes, and one clear sentence per mistake."""

from __future__ import annotations

import csv
import json
import re
import shlex
import signal
import socket
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from helpers.postgres_server import postgres_server
from helpers.studies import CommandLine, InProcess, wait_for

from tuner.catalog.gpu import gpu_names

SHORT = ["--workload", "chat", "--window-s", "25", "--no-checks"]
QWEN = ["--emulate", "H100-SXM", "--model", "Qwen/Qwen3-8B"]
EMULATED = [*QWEN, *SHORT, "--confirm-window-s", "25", "--confirm-repeats", "2"]


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    """A store with two studies: one with a front, and one in which nothing meets the SLO."""
    tuner = InProcess(tmp_path_factory.mktemp("night"))
    slo = ["--slo", "p99_tpot_ms<=100"]
    done = tuner("run", *EMULATED, *slo, "--study", "eight", "--trials", "6")
    assert done.returncode == 0, done.stderr
    options = ["--emulate", "L4", "--model", "Qwen/Qwen3-1.7B", *SHORT]
    nothing = ["--slo", "p99_ttft_ms<=0.001", "--study", "small", "--trials", "3", "--yes"]
    failed = tuner("run", *options, *nothing, "--concurrency", "4")
    assert failed.returncode == 4, failed.stderr
    return tuner


def test_run_prints_the_front_beside_the_default_and_says_emulated(night: InProcess) -> None:
    shown = night("resume", "eight")  # nothing is left to do: it shows the front again
    assert shown.returncode == 0
    assert "Pareto front of eight" in shown.stdout
    assert "0 default" in shown.stdout
    assert re.search(r"emulated energy \(± \d+ %\) and latency \(± \d+ %\)", shown.stdout)
    data = json.loads(night("resume", "eight", "--format", "json").stdout)
    assert data["emulated"] == ["energy", "latency"]
    assert 0 < data["emulator_error"]["energy_per_output_token_j"] < 1
    assert data["default"]["baseline"] is True


def test_recommend_answers_for_the_right_model(night: InProcess) -> None:
    answer = json.loads(night("recommend", "Qwen3-8B", "--format", "json").stdout)
    assert (answer["study"], answer["model"]) == ("eight", "Qwen/Qwen3-8B")
    best = answer["recommended"]
    assert answer["confirmed"] is True and best["repeats"] >= 2
    assert best["p99_tpot_ms"] <= 100
    for other in answer["alternatives"]:
        assert other["confirmed"] is True
        if other["slo_verdict"] == "met":
            assert best["energy_per_output_token_j"] <= other["energy_per_output_token_j"]


def test_recommend_says_plainly_when_nothing_met_the_slo(night: InProcess) -> None:
    for words in (["Qwen3-1.7B"], ["--study", "eight", "--slo", "p99_ttft_ms<=0.001"]):
        answer = night("recommend", *words)
        assert answer.returncode == 4
        assert "p99_ttft_ms" in answer.stderr and "Traceback" not in answer.stderr
        assert answer.stdout == ""


def test_the_hint_to_deploy_deploys_what_is_shown(night: InProcess) -> None:
    words = ["recommend", "--study", "eight", "--slo", "p99_tpot_ms<=70"]
    hint = night(*words).stdout.split("to deploy: tuner ")[1].strip()
    shown = json.loads(night(*words, "--format", "json").stdout)
    assert "--slo 'p99_tpot_ms<=70'" in hint
    done = night(*shlex.split(hint))
    if shown["is_default"]:
        assert "there is nothing to set" in done.stderr
    else:
        assert f"trial {shown['recommended']['number']}" in done.stdout


def test_a_price_gives_the_cost_of_a_million_tokens(night: InProcess) -> None:
    words = ["recommend", "--study", "eight", "--price", "0.3", "--currency", "CHF"]
    price = json.loads(night(*words, "--format", "json").stdout)["price"]
    assert (price["per_kwh"], price["currency"]) == (0.3, "CHF")
    assert "CHF of GPU energy per million output tokens" in " ".join(night(*words).stdout.split())


@pytest.mark.parametrize("form", ["vllm", "env", "systemd", "compose", "k8s", "helm-values"])
def test_any_trial_can_be_exported_in_every_form(night: InProcess, form: str) -> None:
    done = night("recommend", "--study", "eight", "--trial", "0", "--format", form)
    assert done.returncode == 0, done.stderr
    assert "study eight, trial 0" in done.stdout
    assert "EMULATED energy and latency: not measured on a real device" in done.stdout


def test_a_reader_that_closes_the_pipe_is_no_error(night: InProcess) -> None:
    store = shlex.quote(str(night.store_path))
    here = f"--store {store}"
    for words in (
        f"show eight {here}",
        f"show eight --format json {here}",
        "workload show chat",
    ):
        # `true` has ended before anything is written
        command = f"{sys.executable} -m tuner {words} | true"
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, ""), words


def test_requests_are_exported_too(night: InProcess) -> None:
    done = night("export", "eight", "--requests", "requests.csv")
    assert done.returncode == 0, done.stderr
    header, *rows = (night.folder / "requests.csv").read_text().splitlines()
    assert header.startswith("study,trial,request_id,state,")
    assert rows and f"wrote {len(rows)} requests to requests.csv" in done.stderr


def test_the_version_is_told(night: InProcess) -> None:
    assert night("--version").stdout == f"tuner {version('tuner')}\n"


def test_export_to_stdout_and_to_devices(night: InProcess) -> None:
    done = CommandLine(night.folder)("export", "eight", "--csv", "-")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("study,number,") and len(done.stdout.splitlines()) == 7
    assert not (night.folder / "-").exists()
    assert night("export", "eight", "--csv", "/dev/null").returncode == 0
    assert Path("/dev/null").is_char_device()


def test_a_signal_ends_a_virtual_study_too(tmp_path: Path) -> None:
    tuner = CommandLine(tmp_path)
    process = tuner.start("run", *EMULATED, "--trials", "5000", "--study", "long")
    wait_for(lambda: len(tuner.trials("long")) > 2, 60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_a_study_is_resumed_from_any_folder(night: InProcess, tmp_path: Path) -> None:
    space = tmp_path / "mine.yaml"
    space.write_text(
        "name: mine\nflags: {max_num_seqs: {type: power_of_two, low: 1, high: 1024}}\n"
    )
    here = InProcess(tmp_path)
    words = ["--space", "mine.yaml", "--trials", "2"]
    assert here("run", *EMULATED, *words, "--no-confirm", "--study", "m").returncode == 0
    store = str(here.store_path)
    assert night("resume", "m", "--trials", "1", "--store", store).returncode == 0
    assert len(here.trials("m")) == 3


def test_a_budget_can_be_extended(night: InProcess) -> None:
    more = night("resume", "small", "--trials", "1")
    assert more.returncode == 4
    assert len(night.trials("small")) == 4


def test_list_show_and_export(night: InProcess) -> None:
    pytest.importorskip("pyarrow")
    names = {s["name"] for s in json.loads(night("list", "--format", "json").stdout)}
    assert names == {"eight", "small"}
    shown = json.loads(night("show", "eight", "--format", "json").stdout)
    assert len(shown["trials"]) == 6
    assert "Qwen/Qwen3-8B" in night("show", "eight").stdout
    done = night("export", "eight", "--csv", "eight.csv", "--parquet", "eight.parquet")
    assert done.returncode == 0, done.stderr
    import pandas as pd

    with (night.folder / "eight.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    parquet = pd.read_parquet(night.folder / "eight.parquet")
    assert [int(row["number"]) for row in rows] == list(parquet["number"]) == list(range(6))
    name, repeats = "p99_tpot_ms", night.repeats("eight")
    kinds = set()
    for trial, row, whole in zip(night.trials("eight"), rows, shown["trials"], strict=True):
        assert trial.measurement is not None
        searched = trial.measurement.metrics[name]
        own = [r.measurement.metrics[name] for r in repeats if r.trial == trial.number]
        assert float(row[name]) == parquet[name][trial.number] == whole["metrics"][name]
        assert float(row[f"search.{name}"]) == searched == whole["search_metrics"][name]
        is_confirmed = row["confirmed"] == "True"
        assert is_confirmed is whole["confirmed"] is (len(own) >= 2)
        if is_confirmed:
            assert whole["metrics"][name] == pytest.approx(statistics.geometric_mean(own))
        else:
            assert whole["metrics"][name] == searched
        kinds.add(is_confirmed)
    assert kinds == {True, False}


def test_measure_answers_with_every_metric(night: InProcess) -> None:
    words = ["--set", "max_num_seqs=64", "--set", "power_limit_w=400", "--format", "json"]
    done = night("measure", *QWEN, "--workload", "chat", *words, "--window-s", "60")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["energy_source"] == answer["latency_source"] == "emulated"
    assert answer["metrics"]["mean_power_w"] <= 401
    assert answer["configuration"] == {"max_num_seqs": 64, "power_limit_w": 400}
    from tuner.metrics import METRICS, TEXT

    drafts = {n for n in METRICS if "acceptance" in n}  # nothing was drafted
    assert set(answer["metrics"]) == {n for n in METRICS if not TEXT.lacks(n)} - drafts
    assert {"energy_per_output_token_j", "p50_tpot_ms"} <= set(answer["intervals_95"])
    for name, (low, high) in answer["intervals_95"].items():
        assert low <= answer["metrics"][name] <= high, name


def test_a_study_file_says_the_same(night: InProcess) -> None:
    (night.folder / "study.yaml").write_text(
        "model: Qwen/Qwen3-8B\nemulate: H100-SXM\nworkload: chat\nwindow_s: 10\ntrials: 2\n"
        "confirm: false\nstudy: filed\nconcurrency: 8\nobjective: ['output_throughput_tok_s:max']\n"
    )
    done = night("run", "study.yaml", "--format", "json", "--store", "other.db")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["objectives"] == ["output_throughput_tok_s:max"]


@pytest.mark.parametrize("gpu", gpu_names())
def test_the_power_space_fits_every_gpu(tmp_path: Path, gpu: str) -> None:
    night = InProcess(tmp_path)
    words = ["--emulate", gpu, "--model", "meta-llama/Llama-3.2-1B-Instruct", "--workload", "smoke"]
    budget = ["--trials", "2", "--window-s", "4", "--concurrency", "4", "--no-confirm"]
    done = night("run", *words, *budget, "--space", "power", "--study", "power")
    assert done.returncode == 0, done.stderr
    assert len(night.trials("power")) == 2


BAD_INPUT = [
    ("run --model m --trials 1 --space powr", 2, "did you mean 'power'"),
    ("run --model m --trials 1 --workload caht", 2, "did you mean 'chat'"),
    ("run --model m --trials 1 --slo p99_tpt_ms<=50", 2, "did you mean 'p99_tpot_ms'"),
    ("run --model m --trials 1 --slo p99_tpot_ms=50", 2, "is not METRIC<=BOUND"),
    ("run --model m --trials 1 --objective joules", 2, "unknown metric 'joules'"),
    ("run --model m --trials none", 2, "Invalid value for '--trials'"),
    ("run --trials 1", 2, "no model"),
    ("run --model m", 2, "no budget"),
    ("run none.yaml", 2, "none.yaml"),
    ("run --model Qwen/Qwen3-8B --trials 1 --emulate H1000", 2, "H100-SXM"),
    ("run --model Qwen/Qwen-none --trials 1 --emulate L4", 2, "Qwen/Qwen-none"),
    ("run --model ./none --trials 1 --emulate L4", 2, "./none"),
    ("run --model Qwen/Qwen3-8B --trials 1 --emulate L4 --space typo.yaml", 2, "max_num_seqs"),
    ("run --model Qwen/Qwen3-32B --trials 1 --emulate L4", 3, "does not start on L4"),
    ("run --model m --trials 1 --base-url http://127.0.0.1:9 --space load", 3, "127.0.0.1:9"),
    ("run --model m --trials 1 --base-url http://127.0.0.1:9", 2, "--space load"),
    ("run --model m --trials 1 --vllm ./no-vllm", 3, "no-vllm"),
    ("run --model Qwen/Qwen3-8B --trials 1 --emulate L4 --study eight", 2, "tuner resume eight"),
    ("run --model Qwen/Qwen3-8B --trials 1 --emulate L4 --study \udcff", 2, "is not UTF-8"),
    ("show \udcff", 2, "is not UTF-8"),
    ("resume nine", 2, "eight"),
    ("show nine", 2, "unknown study 'nine'"),
    ("recommend none", 2, "Qwen/Qwen3-8B"),
    ("recommend --study nine", 2, "nine"),
    ("recommend --study eight --trial 99", 2, "tuner show eight"),
    ("recommend --study eight --price 0", 2, "no price per kWh"),
    ("export eight", 2, "--csv FILE"),
    ("export eight --csv file.txt/x.csv", 3, "file.txt"),
    ("measure --model Qwen/Qwen3-8B --emulate L4 --set max_num_seq=8", 2, "'max_num_seqs'"),
    ("measure --model Qwen/Qwen3-8B --emulate L4 --set power_limit_w=9", 2, "40"),
    ("measure --model Qwen/Qwen3-8B --emulate L4 --window-s 0", 2, "tuner: window_s: found 0, it"),
    ("measure --model Qwen/Qwen3-8B --emulate L4 --set request_rate=abc", 2, "request_rate=abc"),
    ("measure --model Qwen/Qwen3-8B --emulate L4 --set request_rate=0", 2, "greater than 0"),
    ("measure --model Qwen/Qwen3-8B --emulate L4 --set concurrency=-4", 2, "greater than 0"),
    ("run --model Qwen/Qwen3-8B --trials 1 --emulate L4 --space cpu-smoke", 2, "load_format"),
    ("run --model Qwen/Qwen3-8B --trials 1 --emulate L4 --seed 99999999999999", 2, "seed"),
    ("resume eight --hours 0", 2, "hours"),
    ("resume eight --loads half", 2, "tuner: --loads: write shares of the capacity"),
    ("resume eight --hours inf", 2, "hours"),
    ("list --store none.db", 2, "no store at"),
    ("list --store folder", 3, "folder"),
    ("list --store text.db", 3, "text.db"),
    ("list --store corrupt.db", 5, "corrupt.db"),
    ("run --model Qwen/Qwen3-8B --emulate L4 --trials 1 --store file.txt/x.db", 3, "file.txt"),
]


@pytest.fixture(scope="module")
def traps(night: InProcess) -> InProcess:
    (night.folder / "folder").mkdir()
    (night.folder / "text.db").write_text("this is a shopping list, not a database\n" * 40)
    (night.folder / "file.txt").write_text("")
    (night.folder / "typo.yaml").write_text(
        "name: typo\nflags: {max_num_seq: {type: power_of_two, low: 1, high: 8, default: 8}}\n"
    )
    whole = bytearray(night.store_path.read_bytes())
    whole[8192:40960] = b"\x07" * (40960 - 8192)
    (night.folder / "corrupt.db").write_bytes(whole)
    return night


@pytest.mark.parametrize(("words", "code", "says"), BAD_INPUT, ids=[b[0] for b in BAD_INPUT])
def test_bad_input_is_one_sentence_and_an_exit_code(
    traps: InProcess, words: str, code: int, says: str
) -> None:
    before = {p: p.read_bytes() for p in traps.folder.glob("*.db")}
    done = traps(*words.split())
    assert done.returncode == code, done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    if not done.stderr.lstrip().startswith("Usage:"):  # Typer's own, in a box
        assert len(done.stderr.strip().splitlines()) == 1
    assert {p: p.read_bytes() for p in before} == before


def test_a_port_that_is_taken_is_told(night: InProcess, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ["run", *EMULATED, "--live", "--trials", "1", "--store", str(tmp_path / "s.db")]
        done = night(*words, "--port", port)
    assert done.returncode == 3
    assert f"port {port}" in done.stderr and "Traceback" not in done.stderr


def test_help_of_every_command(night: InProcess) -> None:
    plain = ("", "run", "resume", "recommend", "list", "show", "export", "measure")
    for command in (*plain, "gpu status", "gpu restore", "workload show", "workload import"):
        done = night(*command.split(), "--help")
        assert done.returncode == 0
        assert "Usage: " in done.stdout


@pytest.mark.postgres
def test_a_study_lives_in_postgresql_too(tmp_path: Path) -> None:
    tuner = InProcess(tmp_path)
    with postgres_server() as url:
        words = ["--study", "shared", "--format", "json", "--store", url]
        done = tuner("run", *EMULATED, "--trials", "3", *words)
        assert done.returncode == 0, done.stderr
        assert tuner("resume", "shared", "--trials", "1", "--store", url).returncode == 0
        answer = json.loads(tuner("recommend", "Qwen3-8B", *words[:-2], "--store", url).stdout)
        assert answer["study"] == "shared"
        shown = json.loads(tuner("show", "shared", *words[2:]).stdout)
        assert len(shown["trials"]) == 4
