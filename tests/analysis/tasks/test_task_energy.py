"""The task table: each figure by hand, and nothing where something is unknown."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from helpers.records import IDENTITY, OWNER
from rich.console import Console

from tuner.analysis.tasks.flops_estimate import FlopsBasis, active_parameters, flops_basis
from tuner.analysis.tasks.task_energy import TaskEnergy, TaskTable, task_tables
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.errors import UsageError
from tuner.load.workload import load_workload
from tuner.records import (
    Measurement,
    PowerTimeline,
    RawRun,
    RequestRecord,
    RequestState,
    ServerTimeline,
    Source,
)
from tuner.report.terminal.task_table import show_tasks, tasks_json
from tuner.store import Store, StudyIdentity

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
CHAT = replace(IDENTITY, name="chat-night", model=LLAMA, spec_json={"concurrency": 64})
CODE = replace(CHAT, name="code-night", workload_name="code")
NOTHING = np.array([])


def request(number: int, prompt_tokens: int, ended_s: float, state: RequestState) -> RequestRecord:
    return RequestRecord(number, prompt_tokens, 9, 0.0, 0.0, NOTHING, ended_s, state)


def raw(*prompt_tokens: int) -> RawRun:
    """A run whose window is 10 to 70 s; what ended outside of it, or badly, does not count."""
    inside = [request(i, n, 20.0, RequestState.DONE) for i, n in enumerate(prompt_tokens)]
    outside = request(90, 10_000, 5.0, RequestState.DONE)
    cut = request(91, 10_000, 20.0, RequestState.CUT)
    return RawRun(
        (*inside, outside, cut),
        PowerTimeline(NOTHING, NOTHING, NOTHING, Source.MEASURED),
        ServerTimeline(NOTHING, NOTHING, NOTHING),
        10.0,
        70.0,
        Source.MEASURED,
    )


def add(store: Store, study: StudyIdentity, trials: list[tuple[float, float]], run: RawRun) -> None:
    """Add a study; each trial is J/token and output tokens per request, the default first."""
    store.create_study(study)
    for number, (energy_j, tokens) in enumerate(trials):
        flags = {} if number == 0 else {"max_num_seqs": 2**number}
        configuration = Configuration(flags=flags)
        store.begin_trial(study.name, number, configuration, baseline=number == 0, owner=OWNER)
        metrics = {
            "energy_per_output_token_j": energy_j,
            "energy_per_request_j": energy_j * tokens,
            "p99_tpot_ms": 30.0,
        }
        found = Measurement(metrics, 10.0, 70.0, Source.MEASURED, study.energy_source)
        store.save_measurement(study.name, number, found, run if number == 0 else None)


def by_workload(table: TaskTable) -> dict[str, TaskEnergy]:
    return {task.workload: task for task in table.tasks}


@pytest.fixture
def two(empty: Store) -> Store:
    add(empty, CODE, [(0.5, 40.0), (0.4, 40.0)], raw(2000))
    add(empty, CHAT, [(0.2, 400.0), (0.15, 400.0)], raw(900, 1100))
    return empty


def test_every_figure_by_hand(two: Store) -> None:
    (table,) = task_tables(two, None, 0.1)
    assert [task.workload for task in table.tasks] == ["chat", "code"]
    chat, code = table.tasks
    assert (chat.prompt_tokens, chat.output_tokens) == (1000.0, pytest.approx(400.0))
    assert (chat.default_j, chat.recommended_j) == (pytest.approx(80.0), pytest.approx(60.0))
    assert (chat.saving_percent, chat.energy_multiplier) == (pytest.approx(25.0), 1.0)
    assert code.token_multiplier == pytest.approx(0.1)
    assert code.energy_multiplier == pytest.approx(16.0 / 60.0)
    assert code.saving_percent == pytest.approx(20.0)
    # 2 x 7.504658432e9 x 1400 / (989e12 x 0.1) x 700 W
    assert chat.estimated_j == pytest.approx(148.725, rel=1e-4)
    assert chat.estimate_ratio == pytest.approx(148.725 / 80.0, rel=1e-4)
    assert "64" in chat.load and chat.confirmed is False


def test_the_load_of_the_workload_is_told_where_the_study_asked_for_none(empty: Store) -> None:
    own = replace(CHAT, workload_sha256=load_workload("chat").sha256, spec_json={})
    add(empty, own, [(0.2, 400.0)], raw(900))
    add(empty, replace(CODE, spec_json={"workload": "none.yaml"}), [(0.2, 400.0)], raw(900))
    (table,) = task_tables(empty, None, 0.1)
    assert "64 requests under way" in by_workload(table)["chat"].load
    assert by_workload(table)["code"].load == "the workload's own load"


def test_the_estimate_is_inverse_to_the_assumption_and_blind_to_the_number_of_gpus() -> None:
    one = flops_basis(CHAT)
    assert one is not None
    assert one == flops_basis(replace(CHAT, gpu=f"2 x {CHAT.gpu}"))
    assert one.energy_j(1.0, 0.05) == pytest.approx(2.0 * one.energy_j(1.0, 0.1))


def test_parameters_of_a_mixture_are_those_that_a_token_meets() -> None:
    model = load_model("Qwen/Qwen3-30B-A3B")
    assert model.moe is not None
    idle = model.moe.layers * (model.moe.count - model.moe.active) * model.moe.parameters
    looked_up = model.embedding_parameters
    assert active_parameters(model) == model.parameters - idle - looked_up
    dense = load_model(LLAMA)
    assert active_parameters(dense) == dense.parameters - dense.embedding_parameters


def test_models_in_8_bits_have_the_peak_of_8_bits() -> None:
    fp8 = flops_basis(replace(CHAT, model="meta-llama/Llama-3.1-405B-Instruct-FP8"))
    assert fp8 is not None and fp8.peak_flop_s == 1978e12


@pytest.mark.parametrize("change", [{"model": "mine/secret-7b"}, {"gpu": "NVIDIA X1"}])
def test_no_estimate_of_what_is_not_known(empty: Store, change: dict[str, str]) -> None:
    add(empty, replace(CHAT, **change), [(0.2, 400.0)], raw(900))
    (table,) = task_tables(empty, None, 0.1)
    assert table.basis is None
    assert (table.tasks[0].estimated_j, table.tasks[0].estimate_ratio) == (None, None)
    assert "unknown here" in shown([table])


def test_nothing_is_relative_to_chat_without_chat(empty: Store) -> None:
    add(empty, CODE, [(0.5, 40.0), (0.4, 40.0)], raw(2000))
    (table,) = task_tables(empty, None, 0.1)
    assert (table.tasks[0].token_multiplier, table.tasks[0].energy_multiplier) == (None, None)
    assert "no study of the workload chat" in shown([table])


def test_the_newest_study_counts_that_recommends_something(two: Store) -> None:
    newer = replace(CODE, name="code-2", created_at=CODE.created_at + timedelta(days=1))
    add(two, newer, [(0.45, 40.0)], raw(2000))
    hopeless = replace(newer, name="code-3", slos=("p99_tpot_ms<=1",))
    add(two, replace(hopeless, created_at=newer.created_at + timedelta(days=1)), [(9, 9)], raw(1))
    (table,) = task_tables(two, None, 0.1)
    assert by_workload(table)["code"].study == "code-2"


def test_a_task_without_a_recommendation_says_why(two: Store) -> None:
    hopeless = replace(CHAT, name="r", workload_name="reasoning", slos=("p99_tpot_ms<=1",))
    add(two, hopeless, [(0.1, 5000.0)], raw(200))
    (table,) = task_tables(two, None, 0.1)
    task = by_workload(table)["reasoning"]
    assert (task.recommended_j, task.saving_percent) == (None, None)
    assert task.default_j == pytest.approx(500.0)
    assert task.note is not None and "p99_tpot_ms" in task.note


def test_gpus_and_sources_are_kept_apart(two: Store) -> None:
    emulated = {"energy_source": Source.EMULATED, "latency_source": Source.EMULATED}
    dreamt = replace(CHAT, name="dreamt", gpu="H200-SXM", **emulated)
    add(two, dreamt, [(0.1, 400.0)], raw(1000))
    tables = {table.gpu: table for table in task_tables(two, LLAMA, 0.1)}
    assert set(tables) == {CHAT.gpu, "H200-SXM"}
    assert tables["H200-SXM"].tasks[0].emulated == ("energy", "latency")
    assert "[emulated energy and latency]" in " ".join(shown([tables["H200-SXM"]]).split())
    assert "emulated" not in shown([tables[CHAT.gpu]])


def test_several_models_have_to_be_named(two: Store) -> None:
    add(two, replace(CHAT, name="other", model="Qwen/Qwen3-8B"), [(0.2, 400.0)], raw(900))
    with pytest.raises(UsageError, match="several models"):
        task_tables(two, None, 0.1)
    assert len(task_tables(two, "Qwen3-8B", 0.1)) == 1


def test_the_table_fits_and_states_its_formula(two: Store) -> None:
    text = shown(task_tables(two, None, 0.2))
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "2 x active parameters x (prompt + output tokens) / (peak FLOP/s x MFU) x TDP" in flat
    assert "an MFU of 0.2, as given by --mfu" in flat
    assert "Epoch AI" in shown(task_tables(two, None, 0.1))


def test_the_json_has_the_same_figures(two: Store) -> None:
    tables = task_tables(two, None, 0.1)
    (data,) = json.loads(json.dumps(tasks_json(tables)))
    assert data["tasks"][0]["recommended_j"] == tables[0].tasks[0].recommended_j
    assert data["estimate"]["tdp_w"] == 700.0
    assert FlopsBasis(1, 1e12, 500.0).energy_j(1e12, 0.5) == pytest.approx(2000.0)


def shown(tables: list[TaskTable]) -> str:
    console = Console(file=io.StringIO(), width=80, color_system=None)
    show_tasks(console, tables)
    return console.file.getvalue()
