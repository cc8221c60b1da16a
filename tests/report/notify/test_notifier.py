"""A night's end is told to a webhook and a command, and no secret of theirs is shown."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from helpers.records import IDENTITY
from helpers.stored_study import add_night, repeat

from tuner.errors import (
    DoubtfulRequestError,
    InterruptedBySignalError,
    PreflightError,
    TunerError,
    UsageError,
)
from tuner.host.redaction import redacted
from tuner.report.notify.message import finished_message
from tuner.report.notify.notifier import Notifier
from tuner.report.notify.target import Webhook, target
from tuner.report.study_results import load_study
from tuner.store import Store
from tuner.study.listener import Progress

SECRET = "T0SECRET/B0SECRET/xoxSECRET"


class Receiver:
    """A webhook that keeps what it gets and answers `status`."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, object]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers["Content-Length"])
                receiver.bodies.append(json.loads(self.rfile.read(size)))
                self.send_response(receiver.status)
                self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def run_that_ends(texts: list[str], error: BaseException | None, store: Path) -> list[str]:
    """Return what was noted on a run that ended so."""
    notes: list[str] = []
    try:
        with Notifier(texts, notes.append) as notifier:
            notifier.study_started("night", Progress(0, 5, 0.0, 1.0))
            if error is not None:
                raise error
            notifier.finished(load_study("night", str(store)))
    except (TunerError, InterruptedBySignalError, RuntimeError):
        pass
    return notes


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("night") / "tuner.db"
    with Store.open(path, create=True) as opened:
        add_night(opened, IDENTITY)
    return path


@pytest.mark.parametrize(
    ("error", "event", "code", "says"),
    [
        (None, "finished", 0, "trial 2: 37.5 % less energy"),
        (DoubtfulRequestError("the SLO is too wide"), "needs_operator", 5, "the SLO is too wide"),
        (PreflightError("no disk"), "failed", 3, "no disk"),
        (RuntimeError("a bug"), "failed", 1, "a bug"),
        (InterruptedBySignalError(signal.SIGTERM), "interrupted", 143, "SIGTERM"),
    ],
)
def test_each_end_is_told(
    receiver: Receiver,
    store: Path,
    error: BaseException | None,
    event: str,
    code: int,
    says: str,
) -> None:
    assert run_that_ends([receiver.url], error, store) == []
    (body,) = receiver.bodies
    assert (body["event"], body["study"], body["exit_code"]) == (event, "night", code)
    assert says in str(body["text"]) and "\n" not in str(body["text"])


@pytest.mark.parametrize("error", [UsageError("a typo"), InterruptedBySignalError(signal.SIGINT)])
def test_who_is_there_is_not_told(receiver: Receiver, store: Path, error: BaseException) -> None:
    run_that_ends([receiver.url], error, store)
    assert receiver.bodies == []


@pytest.mark.parametrize("status", [500, 302])
def test_a_webhook_that_fails_is_a_note_without_its_secret(
    receiver: Receiver, store: Path, status: int
) -> None:
    receiver.status = status
    (note,) = run_that_ends([receiver.url], None, store)
    assert f"it answered {status}" in note and "127.0.0.1" in note and "SECRET" not in note
    receiver.server.server_close()
    (note,) = run_that_ends([receiver.url], None, store)  # nobody listens
    assert "was not told" in note and "SECRET" not in note


def test_slack_gets_the_text_alone() -> None:
    slack = Webhook(f"https://hooks.slack.com/services/{SECRET}")
    assert slack._takes_only_text and "SECRET" not in slack.name


def test_a_command_hears_the_line_and_the_facts(store: Path, tmp_path: Path) -> None:
    told = tmp_path / "told"
    line, facts = tmp_path / "line", tmp_path / "facts"
    script = f'cat > {line}; echo "$TUNER_EVENT $TUNER_EXIT_CODE" > {facts}'
    told.write_text(f"#!/bin/sh\n{script}\n")
    told.chmod(0o755)
    assert run_that_ends([str(told)], None, store) == []
    assert "trial 2: 37.5 % less energy" in line.read_text() and facts.read_text() == "finished 0\n"
    (note,) = run_that_ends(["false"], None, store)
    assert "the command false" in note and "status 1" in note


@pytest.mark.parametrize("text", ["ftp://host/x", "https://", "no-such-command --x", "'open"])
def test_what_cannot_be_told_is_refused_before_the_night(text: str) -> None:
    with pytest.raises(UsageError, match="--notify"):
        target(text)


@pytest.mark.parametrize(
    "url",
    [
        f"https://hooks.slack.com/services/{SECRET}",
        f"https://discord.com/api/webhooks/1/{SECRET}",
        f"https://x.webhook.office.com/webhookb2/{SECRET}",
        "https://api.telegram.org/bot1:SECRET/sendMessage",
    ],
)
def test_a_webhook_is_redacted_wherever_it_is_written(url: str) -> None:
    assert "SECRET" not in redacted(f"curl -d x {url} failed")


@pytest.mark.parametrize(
    ("ours_j", "tpots_ms", "says"),
    [
        (
            (0.30, 0.30, 0.30, 0.30),
            (30.0, 31.0, 30.0, 31.0),
            "25.0 % less energy per output token than",
        ),
        ((0.30, 0.30, 0.30, 0.30), (40.0, 49.5, 44.0, 48.0), "unsure whether the SLO is met"),
        ((0.36, 0.44, 0.38, 0.415), (30.0, 31.0, 30.0, 31.0), "tied with vLLM's default"),
    ],
)
def test_what_is_told_is_as_sure_as_it_is(
    tmp_path: Path, ours_j: tuple[float, ...], tpots_ms: tuple[float, ...], says: str
) -> None:
    with Store.open(tmp_path / "tuner.db", create=True) as opened:
        add_night(opened, IDENTITY)
        for traffic, (energy_j, tpot_ms) in enumerate(zip(ours_j, tpots_ms, strict=True)):
            repeat(opened, 0, 0.40, 60.0, traffic=traffic)  # so that it is no alternative
            repeat(opened, 2, energy_j, tpot_ms, traffic=traffic)
    text = finished_message(load_study("night", str(tmp_path / "tuner.db"))).text
    assert "trial 2: " in text and says in text
    assert "vLLM's default, which misses the SLO" in text
