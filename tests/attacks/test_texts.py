"""Texts from a store, a server or a user: what steers a terminal, runs, or tells a secret."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.export_cases import SECRET as TOKEN
from helpers.export_cases import expanded
from helpers.records import IDENTITY
from helpers.stored_study import add_night
from helpers.studies import InProcess

from tuner.commands.shared.output import store_option
from tuner.errors import UsageError
from tuner.report.exports.deployment import Deployment
from tuner.report.exports.export import EXPORTS, load_export
from tuner.spec.settings import parse_settings
from tuner.spec.study import StudySpec
from tuner.store import Store
from tuner.store.address import parse_address

STEERING = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\u2066"
SECRET = "S3cret-pq.305"


@pytest.fixture
def tuner(tmp_path: Path) -> InProcess:
    tuner = InProcess(tmp_path)
    tuner.store_path.parent.mkdir()
    with Store.open(tuner.store_path, create=True) as store:
        add_night(store, replace(IDENTITY, name="night"))
    return tuner


def change(tuner: InProcess, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(tuner.store_path)) as connection:
        connection.execute(statement, values)
        connection.commit()


COMMANDS = [
    ["list"], ["show"], ["status"], ["recommend"], ["tasks"], ["show", "--trial", "1"],
    *(["recommend", "--format", name] for name in EXPORTS),
]  # fmt: skip


def test_nothing_in_a_store_steers_the_terminal(tuner: InProcess) -> None:
    """Break 11: titles, colours and bidirectional controls reached it."""
    for table, column in (
        ("tuner_studies", "model"), ("tuner_studies", "gpu"), ("tuner_studies", "driver"),
        ("tuner_studies", "workload_name"), ("tuner_studies", "server_version"),
        ("tuner_trials", "failure_reason"), ("tuner_events", "message"), ("tuner_events", "kind"),
    ):  # fmt: skip
        change(tuner, f"UPDATE {table} SET {column} = ?", f"a{STEERING}b[/x][red]")
    change(tuner, "UPDATE tuner_trials SET warnings = ?", json.dumps([f"a{STEERING}b[/x]"]))
    for words in COMMANDS:
        done = tuner(words[0], *(["night"] if words[0] in ("show", "status") else []), *words[1:])
        assert done.returncode in (0, 2), (words, done.stderr)  # 2: an option that is not there
        for text in (done.stdout, done.stderr):
            assert not set(text) & set(STEERING.replace("title", "").replace("0;2J31m]", "")) - set(
                "[]0;2J31m"
            ), words


def test_markup_in_a_name_is_a_name(tuner: InProcess) -> None:
    """Break 12: `[/x]` as a knob's name ended three commands in a MarkupError."""
    for name in ("[/x]", "[red]a[/red]", "a b", "$(touch x)", "a'b", "x" * 500):
        flags = json.dumps({"flags": {name: 1}, "environment": {}, "device": {}, "load": {}})
        change(tuner, "UPDATE tuner_trials SET configuration = ? WHERE number = 1", flags)
        for words in (["recommend"], ["status", "night"], ["tasks"]):
            done = tuner(*words)
            assert done.returncode == 5, (words, done.stdout)
            assert "trial 1 " in done.stderr
            assert done.stderr.count("\n") == 1


def test_an_env_file_runs_nothing(tuner: InProcess) -> None:
    """Break 13: the name of a variable was run by `. ./FILE`."""
    for name in ("$(touch ran)", "A;touch ran", "A\ntouch ran\n", "`touch ran`"):
        asked = {"flags": {}, "environment": {name: "1"}, "device": {}, "load": {}}
        change(tuner, "UPDATE tuner_trials SET configuration = ?", json.dumps(asked))
        assert tuner("recommend", "--format", "env").returncode == 5
        with pytest.raises(UsageError):
            parse_settings([f"{name.upper()}=1"])
    hostile = "'; touch ran; $(touch ran) `touch ran` \\"
    asked = {"flags": {"x": hostile}, "environment": {"A": hostile}, "device": {}, "load": {}}
    change(tuner, "UPDATE tuner_trials SET configuration = ?", json.dumps(asked))
    exported = tuner("recommend", "--format", "env")
    if exported.returncode == 0:
        path = tuner.folder / "file"
        path.write_text(exported.stdout)
        subprocess.run(["sh", "-c", ". ./file"], cwd=tuner.folder, check=True)
    assert not (tuner.folder / "ran").exists()


DEPLOYED = Deployment(
    name="vllm-m",
    model="m",
    flags={},
    environment={},
    withheld=(),
    gpu="H100",
    gpus=1,
    power_limit_w=None,
    sm_clock_mhz=None,
    release=None,
    about=(),
)


@pytest.mark.parametrize("text", ["$$(HF_TOKEN)", "a$$b", "$(HF_TOKEN)", "$", "$$$$(A)", "$a"])
def test_kubernetes_puts_no_secret_into_a_word(text: str) -> None:
    """Break 15: `$$(HF_TOKEN)` became the token on the command line."""
    from tuner.report.exports.kubernetes import literal

    assert expanded(literal(text)) == text
    assert TOKEN not in expanded(literal(text))


def test_a_backslash_takes_no_line_of_a_unit(tuner: InProcess) -> None:
    """Break 19: a model that ends in a backslash took the next line into its description."""
    for model in ("m\\", "m\\\\\\", "\\"):
        lines = load_export("systemd")(replace(DEPLOYED, model=model)).splitlines()
        assert "Wants=network-online.target" in lines
        before = lines[lines.index("Wants=network-online.target") - 1]
        assert before.startswith("Description=")
        assert not before.endswith("\\")


def test_exports_hold_no_control_characters() -> None:
    awkward = replace(DEPLOYED, model=f"m{STEERING}", flags={"x": STEERING}, about=(STEERING,))
    for name in EXPORTS:
        text = load_export(name)(awkward)
        assert not set(text) & set("\x1b\x07\x9b\u202e\u2066"), name


URLS = [
    f"postgresql://u:{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:a@{SECRET}@127.0.0.1:1/db",
    f"postgresql://u:a/{SECRET}@127.0.0.1:1/db",
    f"postgresql://u@127.0.0.1:1/db?password={SECRET}",
    f"postgresql://127.0.0.1:1/db?user=u&password={SECRET}&sslmode=disable",
    f"postgresql://u:{SECRET}@127.0.0.1:port/db",
    f"postgresql+psycopg://u:{SECRET}@/db?host=/nowhere",
    f"mysql://u:{SECRET}@127.0.0.1/db",
]


@pytest.mark.parametrize("url", URLS)
def test_a_password_of_a_store_is_never_shown(tuner: InProcess, url: str) -> None:
    """Break 5: the hint how to resume had it, and errors had `?password=`."""
    assert SECRET not in store_option(url)
    for words in (["list"], ["status", "night"], ["recommend"], ["store", "check"]):
        done = tuner(*words, "--store", url)
        assert done.returncode in (2, 3, 5), done.stderr
        assert SECRET not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_an_address_that_is_none_is_a_sentence() -> None:
    """Break 17: a port that is no number was a traceback."""
    with pytest.raises(UsageError, match="is no store"):
        parse_address("postgresql://u@h:port/db")


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "a" * 300},
        {"model": "/" + "b/" * 10 + "a" * 300},
        {"model": "a" * 5000},
        {"model": "a\0b"},
        {"model": f"a{STEERING}"},
        {"baseline": {"flags": {"x": "a\0b"}}},
        {"baseline": {"flags": {"lora_token": SECRET}}},
        {"baseline": {"flags": {"A B": 1}}},
        {"baseline": {"environment": {"A=B": "1"}}},
        {"baseline": {"environment": {"A": "a\0b"}}},
        {"baseline": {"environment": {"HTTPS_PROXY": f"http://u:{SECRET}@proxy"}}},
    ],
)
def test_what_no_process_can_be_given_is_refused(fields: dict[str, object]) -> None:
    """Breaks 17 and 18: tracebacks in mid-run, and secrets in the store."""
    asked = {"model": "m", "workload": "smoke", "trials": 1, **fields}
    with pytest.raises(ValueError) as refused:
        StudySpec.model_validate(asked)
    assert SECRET not in str(refused.value).partition("input_value")[0]


@pytest.mark.parametrize(
    "section",
    [
        f"flags: {{lora_token: {SECRET}}}",
        f"environment: {{HTTPS_PROXY: 'http://u:{SECRET}@proxy'}}",
        "environment: {'A=B': '1'}",
        'environment: {A: "a\\0b"}',
        "flags: {'[/x]': 1}",
    ],
)
def test_a_space_with_a_secret_or_an_odd_name_is_refused(tuner: InProcess, section: str) -> None:
    """Break 18: a flag that looks like a secret was stored and shown."""
    space = tuner.folder / "space.yaml"
    knob = "{max_num_seqs: {type: power_of_two, low: 8, high: 64, default: 8}}"
    space.write_text(f"name: mine\nfixed:\n  {section}\nflags: {knob}\n")
    done = tuner(
        *("run", "--emulate", "H100-SXM", "--model", "Qwen/Qwen3-8B", "--workload", "smoke"),
        *("--space", str(space), "--trials", "1", "--slo", "p99_tpot_ms<=50"),
    )
    assert done.returncode == 2, done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
