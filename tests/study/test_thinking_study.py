"""A study with the knob `thinking`, on the emulator: answers are what counts, at every level."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tuner.cli import app
from tuner.errors import UsageError

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
NAME = "llama-3.1-8b-instruct-thinking"


def said(*words: str) -> str:
    found = CliRunner().invoke(app, list(words), env={"COLUMNS": "160"})
    assert found.exit_code == 0, found.output
    return " ".join(found.output.split())


def refused(*words: str) -> str:
    found = CliRunner().invoke(app, list(words))
    assert isinstance(found.exception, UsageError), found.output
    return str(found.exception)


GPU = ("--emulate", "H100-SXM", "--model", MODEL)
FREE = ("--allow-output-changes", "--trials", "3", "--no-confirm", "--no-checks")


# The shipped workload with short answers.
WORKLOAD = """
description: for a test
prompt_tokens: {distribution: uniform, min: 16, max: 64}
output_tokens: {distribution: uniform, min: 10, max: 30}
thinking: {enabled: false}
thinking_levels:
  off: {enabled: false}
  low: {effort: low, token_multiplier: 3}
  high: {effort: high, token_multiplier: 10}
load: {concurrency: 4}
"""


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("workload") / "thinking.yaml"
    path.write_text(WORKLOAD)
    return str(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, workload: str) -> str:
    path = str(tmp_path_factory.mktemp("thinking") / "tuner.db")
    asked = (*GPU, *FREE, "--workload", workload, "--window-s", "20", "--store", path)
    assert "J/answer" in said("run", *asked)
    return path


def test_levels_are_measured_and_compared_by_answers(store: str) -> None:
    answer = json.loads(said("recommend", "--store", store, "--format", "json"))
    levels = {one["level"]: one for one in answer["thinking"]}
    assert set(levels) == {"off", "low", "high"}
    assert levels["off"]["is_baseline"]
    assert levels["off"]["token_multiplier"] == 1.0
    assert 2.5 < levels["low"]["token_multiplier"] < 3.5
    assert 8.0 < levels["high"]["token_multiplier"] < 12.0
    assert levels["high"]["energy_multiplier"] > levels["low"]["energy_multiplier"] > 2.0
    best = answer["recommended"]
    assert best["output"] == "answer"
    assert best["energy_per_unit_j"] == best["metrics"]["energy_per_request_j"]


def test_people_are_told_what_thinking_takes_and_how_it_is_asked_for(store: str) -> None:
    text = said("recommend", "--store", store)
    assert "thinking high:" in text
    assert '{"chat_template_kwargs": {"enable_thinking": false}}' in text
    assert "J/answer" in said("show", NAME, "--store", store)


def test_the_table_of_tasks_has_extended_reasoning(store: str) -> None:
    tasks = json.loads(said("tasks", "--gpu", "H100", "--store", store, "--format", "json"))
    rows = {one["task"]: one for one in tasks["tasks"]}
    assert set(rows) == {"thinking, off", "thinking, low", "thinking, high"}
    assert rows["thinking, high"]["recommended_j"] > 5 * rows["thinking, off"]["recommended_j"]


def test_a_level_changes_answers_and_needs_a_workload_that_has_it() -> None:
    said = refused("run", *GPU, "--workload", "thinking", "--trials", "2")
    assert "--allow-output-changes" in said
    chat = (*GPU, "--workload", "chat", "--space", "thinking")
    assert "needs a workload that says what its levels are" in refused("run", *chat, *FREE)


def test_one_level_is_measured_by_name(workload: str) -> None:
    asked = (*GPU, "--workload", workload, "--set", "thinking=off", "--window-s", "20")
    assert "J/answer" in said("measure", *asked)
