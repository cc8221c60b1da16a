"""A `vllm` that is a small script: it forks an engine and a worker, and misbehaves on request."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tuner.configuration import Configuration, Value
from tuner.servers.launch import LaunchPlan
from tuner.servers.vllm.server import VllmServer

FAKE_VLLM = r"""
import http.server, json, os, signal, sys, time

asked = json.loads(os.environ.get("FAKE_VLLM", "{}"))
flags = dict(word[2:].split("=", 1) for word in sys.argv[3:] if "=" in word)


def note(name, value):
    if "notes" in asked:
        with open(os.path.join(asked["notes"], name), "w") as file:
            file.write(value)


if sys.argv[1] == "--version":
    print("0.32.0+cpu")
    sys.exit(asked.get("version_code", 0))
note("argv", json.dumps(sys.argv[1:]))
note("environment", json.dumps(dict(os.environ)))
note("files", json.dumps([os.readlink("/proc/self/fd/" + fd) for fd in os.listdir("/proc/self/fd")
                          if os.path.exists("/proc/self/fd/" + fd)]))


def child(stubborn=False, own_session=False):
    pid = os.fork()
    if pid == 0:
        if own_session:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else signal.SIG_DFL)
        while True:
            time.sleep(60)
    return pid


def stop(*_):
    if asked.get("ignore_term"):
        return
    for pid in children:
        if not asked.get("leave_children"):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)


children = []
signal.signal(signal.SIGTERM, stop)
children.append(child())
children.append(child(stubborn=True, own_session=True))
if asked.get("bare_child"):
    bare = os.fork()
    if bare == 0:
        os.execve("/bin/sleep", ["sleep", "60"], {})
    note("bare", json.dumps(bare))
if asked.get("flood"):
    os.write(1, b"x" * 99 + b"\n" + b"y" * asked["flood"])
if "refuse" in asked:
    print(open(asked["refuse"]).read(), flush=True)
    os._exit(asked.get("code", 1))
if "die_by" in asked:
    os.kill(os.getpid(), asked["die_by"])
while asked.get("hang"):
    time.sleep(1)
time.sleep(asked.get("late_s", 0))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b""
        if self.path == "/v1/models":
            name = asked.get("name", flags["served-model-name"])
            body = json.dumps({"data": [{"id": name}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer((flags["host"], int(flags["port"])), Handler).serve_forever()
"""


@dataclass(frozen=True, slots=True)
class FakeVllm:
    """The script's command, and plans to launch it. `notes` holds what it saw of its launch."""

    command: tuple[str, ...]
    run_tag: str
    folder: Path

    def plan(
        self,
        *,
        configuration: Configuration | None = None,
        environment: dict[str, Value] | None = None,
        startup_deadline_s: float = 20.0,
        stop_grace_s: float = 5.0,
        port: int | None = None,
        **asked: object,
    ) -> LaunchPlan:
        asked["notes"] = str(self.folder)
        return LaunchPlan(
            server=VllmServer(
                self.command,
                "0.32.0",
                variables={"FAKE_VLLM": json.dumps(asked), **(environment or {})},
            ),
            model="/models/tiny",
            configuration=configuration or Configuration(),
            run_tag=self.run_tag,
            log_path=self.folder / "logs" / "server.log",
            startup_deadline_s=startup_deadline_s,
            port=port,
            stop_grace_s=stop_grace_s,
        )

    def note(self, name: str) -> object:
        return json.loads((self.folder / name).read_text())


@pytest.fixture
def fake(tmp_path: Path, run_tag: str) -> FakeVllm:
    script = tmp_path / "fake_vllm.py"
    script.write_text(FAKE_VLLM)
    return FakeVllm((sys.executable, "-IS", str(script)), run_tag, tmp_path)
