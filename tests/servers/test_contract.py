"""What every server passes, and a toy server to show that a third one is one folder more.

The toy is written from the manual in `tuner/servers/server.py` alone; it has no counters, no
limits that change, and words of its own for everything.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import cast

import aiohttp
import numpy as np
import pytest

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import ModelShape, load_model
from tuner.configuration import Configuration, Value
from tuner.errors import UsageError
from tuner.load.client.client import ClientLimits, Exchange
from tuner.load.client.connections import Connections
from tuner.records import (
    Failure,
    FailureKind,
    GenerationRequest,
    Message,
    Request,
    RequestState,
    TextRequest,
)
from tuner.servers.forking.recipe import ForkRecipe
from tuner.servers.launch import LaunchFailedError, LaunchPlan, RunningServer, launched
from tuner.servers.openai.api import OpenAiApi
from tuner.servers.processes import stop_tagged, tagged_processes
from tuner.servers.registry import emulated_server
from tuner.servers.server import (
    FlagRules,
    Flags,
    HttpApi,
    LogReader,
    NotAnsweredError,
    Server,
)
from tuner.servers.vllm.api import VllmApi
from tuner.servers.vllm_omni.server import OmniServer

MODEL = "Qwen/Qwen3-8B"
TOY = r"""
import http.server, json, sys
model, port, name, slots = sys.argv[1:5]
if int(slots) < 1:
    sys.exit("toy: it needs a slot")


class Handler(http.server.BaseHTTPRequestHandler):
    def send(self, body):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.send(json.dumps({"data": [{"id": name}]}).encode())

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        made, n = list(range(asked["max_tokens"])), len(asked.get("prompt", "text"))
        usage = {"prompt_tokens": n, "completion_tokens": len(made)}
        if not asked.get("stream"):
            answer = {"choices": [{"token_ids": made}], "usage": usage}
            return self.send(json.dumps(answer).encode())
        events = [{"choices": [{"token_ids": [t]}]} for t in made]
        events += [{"choices": [{"finish_reason": "length"}], "usage": usage}]
        lines = [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"]
        self.send("".join(lines).encode())

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
"""


class ToyFlags:
    """One flag of its own, `slots`, and GPUs that are counted."""

    parallel_sizes = ("gpus",)
    context_flag = "room"
    memory_flags = ("gpus",)
    limits = None
    sleep_flags: Flags = MappingProxyType({})

    def word(self, name: str, value: Value) -> str:
        return f"{name}:{value}"

    def value(self, name: str, value: Value) -> Value:
        return value

    def gpus_used(self, configuration: Configuration) -> int:
        return int(configuration.flags.get("gpus", 1))

    def refusal(self, flags: Flags) -> str | None:
        return "it needs a slot" if int(flags.get("slots", 1)) < 1 else None

    def changes_outputs(self, name: str) -> bool:
        return name == "precision"

    def needs_text(self, name: str) -> bool:
        return False

    def suits(self, flags: Flags, model: ModelShape) -> bool:
        return True

    def fits(self, flags: Flags, model: ModelShape, memory_gib: float) -> bool | None:
        return None


class ToyLog:
    """One line says it all."""

    def diagnose_launch(self, log_text: str, exit_code: int | None, timed_out: bool) -> Failure:
        kind = FailureKind.CONFIGURATION if "toy: " in log_text else FailureKind.UNSTABLE
        return Failure(kind, f"toy refused: {log_text.strip()[:100]}")

    def diagnose_death(self, log_text: str, exit_code: int | None) -> Failure:
        return Failure(FailureKind.UNSTABLE, "toy died")

    def broken_gpu(self, log_text: str) -> str | None:
        return None

    def has_dead_engine(self, log_text: str) -> bool:
        return False


@dataclass(frozen=True)
class ToyServer:
    """A script, started with plain words."""

    script: Path
    name: str = "toy"
    version: str = "1"
    known_flags: frozenset[str] | None = frozenset({"slots", "gpus", "room"})
    limits_problem: str | None = "it cannot"
    forks: ForkRecipe | None = None
    environment: Mapping[str, Value] = field(default_factory=dict)
    rules: FlagRules = field(default_factory=ToyFlags)
    api: HttpApi = field(default_factory=OpenAiApi)
    log: LogReader = field(default_factory=ToyLog)

    def unknown_flag(self, name: str) -> str | None:
        return None if name in {"slots", "gpus", "room"} else f"no flag {name}"

    def unknown_variable(self, name: str) -> str | None:
        return None

    def command_line(
        self, model: str, configuration: Configuration, *, host: str, port: int, served_name: str
    ) -> tuple[str, ...]:
        if "port" in configuration.flags:
            raise UsageError("the flag 'port' is set by the tuner; leave it out")
        slots = str(configuration.flags.get("slots", 1))
        return (sys.executable, str(self.script), model, str(port), served_name, slots)


@dataclass(frozen=True)
class Member:
    """A server, and what a test has to know of it: its reserved flag, and flags it refuses."""

    server: Server
    api: HttpApi
    reserved: str
    refused: Flags
    asks: tuple[str, ...] = ("ids", "text", "chat")

    @property
    def makes_tokens(self) -> bool:
        """Whether its answers are text."""
        return "ids" in self.asks


@pytest.fixture(params=["vllm", "omni", "toy"])
def member(request: pytest.FixtureRequest, tmp_path: Path) -> Member:
    if request.param == "vllm":
        command = (sys.executable, "-m", "tuner.emulator")
        server = emulated_server(command, "emulator", {"TUNER_EMULATED_GPU": "H100-SXM"})
        return Member(
            server, server.api, "port", {"max_num_seqs": 64, "max_num_batched_tokens": 16}
        )
    if request.param == "omni":
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        omni = OmniServer(
            (sys.executable, "-m", "helpers.omni_standin"), "0.30.0", None, {"PYTHONPATH": path}
        )
        return Member(omni, omni.api, "port", {"vae_use_tiling": False}, ("image", "video"))
    script = tmp_path / "toy.py"
    script.write_text(TOY)
    toy = ToyServer(script)
    return Member(toy, toy.api, "port", {"slots": 0})


@asynccontextmanager
async def running(
    server: Server, folder: Path, flags: Flags | None = None
) -> AsyncIterator[RunningServer]:
    tag = f"contract-{os.getpid()}-{folder.name}"
    configuration = Configuration(flags=dict(flags or {}))
    plan = LaunchPlan(server, MODEL, configuration, tag, folder / "server.log", 60.0)
    try:
        async with launched(plan) as ready:
            yield ready
        assert tagged_processes(tag) == ()
    finally:
        stop_tagged(tag, grace_s=0)


def asked(kind: str) -> Request:
    ids = np.full(9, 300, dtype=np.int32)
    if kind in ("image", "video"):
        clip = {"frames": 9, "fps": 8.0} if kind == "video" else {}
        size = {"height": 64, "width": 96}
        return GenerationRequest(1, 0.0, ids, 1, "a boat", **size, steps=2, seed=3, **clip)
    if kind == "ids":
        return Request(1, 0.0, ids, 4)
    prompt = "Once upon" if kind == "text" else (Message("user", "Hello"),)
    return TextRequest(1, 0.0, ids, 4, prompt)


async def test_what_is_launched_answers_and_counts(member: Member, tmp_path: Path) -> None:
    """One launch, since it is the slow part: everything that is asked of a running server."""
    async with running(member.server, tmp_path) as ready, aiohttp.ClientSession() as session:
        api, url, name = ready.api, ready.base_url, ready.served_name
        assert await api.is_ready(session, url)
        assert await api.models(session, url) == (name,)
        assert await api.generates(session, url, name)
        if member.makes_tokens:
            answer = await api.greedy_answer(session, url, name, (5, 6, 7), 4)
            assert len(answer) == 4 and all(isinstance(token, int) for token in answer)
        else:
            with pytest.raises(NotAnsweredError):
                await api.greedy_answer(session, url, name, (5, 6, 7), 4)
        for kind in ("image", "video"):
            wanted = cast(GenerationRequest, asked(kind))
            if kind in member.asks:
                assert (await api.picture(session, url, name, wanted))[:4]
            else:
                with pytest.raises(NotAnsweredError):
                    await api.picture(session, url, name, wanted)
        sample = await api.sample(session, url)
        assert sample.running in (0.0, None)
        assert isinstance(await api.version(session, url), str | None)
        assert await api.reset_prefix_cache(session, url) in (True, False)
        async with Connections(20.0) as client:
            for kind in member.asks:
                request = asked(kind)
                exchange = Exchange(request, ready, asyncio.get_running_loop().time())
                await exchange.run(client, ClientLimits(first_token_s=20.0))
                record = exchange.record(0.0)
                assert record.state is RequestState.DONE, (kind, record.error)
                assert len(record.token_times_s) == request.output_tokens
                assert record.prompt_tokens > 0


async def test_what_is_known_to_be_refused_is_refused(member: Member, tmp_path: Path) -> None:
    assert member.server.rules.refusal(member.refused)
    with pytest.raises(LaunchFailedError) as caught:
        async with running(member.server, tmp_path, member.refused):
            pytest.fail("it cannot start")
    assert caught.value.failure.kind is FailureKind.CONFIGURATION
    assert len(caught.value.failure.reason) < 500


def test_rules_hold_without_a_server(member: Member) -> None:
    rules = member.server.rules
    assert rules.refusal({}) is None
    assert rules.gpus_used(Configuration()) == 1
    for size in rules.parallel_sizes:
        assert rules.gpus_used(Configuration(flags={size: 2})) == 2
        assert rules.word(size, 2) != rules.word(size, 4)
    assert rules.context_flag and rules.memory_flags
    assert rules.fits({}, load_model(MODEL), load_gpu("H100-SXM").memory_gib) in (True, None)


def test_a_command_line_has_the_address_and_refuses_it_as_a_knob(member: Member) -> None:
    server = member.server
    line = server.command_line("m", Configuration(), host="127.0.0.1", port=81, served_name="n")
    assert all(any(word in part for part in line) for word in ("m", "81", "n"))
    with pytest.raises(UsageError, match="set by the tuner"):
        server.command_line(
            "m", Configuration({member.reserved: 1}), host="127.0.0.1", port=81, served_name="n"
        )


def test_limits_that_change_are_those_of_the_flags(member: Member) -> None:
    limits = member.server.rules.limits
    if limits is None:
        assert member.server.limits_problem  # and says why
        return
    largest = dict.fromkeys(limits.flags, 64)
    assert limits.governs(largest)
    assert limits.limits(largest) == largest
    assert limits.launch_flags(dict.fromkeys(limits.flags, 1), largest) == largest
    assert limits.most_running(limits.limits({})) is None


@pytest.mark.parametrize("text", ["", "no such line", "x" * 10_000])
def test_any_log_is_a_short_reason(member: Member, text: str) -> None:
    log = member.server.log
    for failure in (log.diagnose_launch(text, 1, False), log.diagnose_death(text, None)):
        assert failure.reason and len(failure.reason) < 500
    assert log.broken_gpu(text) is None and not log.has_dead_engine(text)


@pytest.mark.parametrize("api", [VllmApi(), OpenAiApi()], ids=["vllm", "openai"])
@pytest.mark.parametrize("kind", ["ids", "text", "chat"])
def test_a_call_asks_for_exactly_so_many_tokens(api: HttpApi, kind: str) -> None:
    call = api.completion(asked(kind), "name")
    body = json.loads(call.body)
    assert call.route.startswith("/")
    assert (body["model"], body["max_tokens"], body["stream"]) == ("name", 4, True)


def test_names_are_judged_before_a_launch(member: Member) -> None:
    for name in member.refused:
        assert member.server.unknown_flag(name) is None
    assert member.server.unknown_variable("PATH") is None
    assert not member.server.rules.changes_outputs(next(iter(member.refused)))
