from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.configuration import Configuration
from tuner.errors import OperatorNeededError, PreflightError
from tuner.host.redaction import without_secrets
from tuner.records import FailureKind
from tuner.servers.launch import (
    LaunchFailedError,
    launched,
    read_log,
    usable_port,
)
from tuner.servers.processes import stop_tagged, tagged_processes, wait_until
from tuner.servers.vllm.server import VllmServer

LOGS = Path(__file__).parent / "logs"


def process_named(pid: int) -> str | None:
    """Return the name of a living process."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.name()
    except psutil.NoSuchProcess:
        return None


async def test_a_server_is_ready_under_its_own_name_and_gone_afterwards(fake) -> None:
    async with launched(fake.plan()) as server:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{server.base_url}/v1/models") as response,
        ):
            assert (await response.json())["data"][0]["id"] == server.served_name
        assert server.exit_code() is None
        assert len(tagged_processes(fake.run_tag)) == 3
    assert server.exit_code() == 0
    assert tagged_processes(fake.run_tag) == ()


async def test_the_server_sees_the_configuration_and_nothing_of_our_files(fake, tmp_path) -> None:
    configuration = Configuration(
        flags={"max_num_seqs": 8, "enforce_eager": True},
        environment={"VLLM_CPU_KVCACHE_SPACE": 2, "SOME_SWITCH": True},
    )
    with (tmp_path / "ours").open("w") as ours:
        os.set_inheritable(ours.fileno(), True)
        plan = fake.plan(configuration=configuration, environment={"SOME_SWITCH": "lost"})
        async with launched(plan):
            pass
    argv, environment = fake.note("argv"), fake.note("environment")
    assert argv[:2] == ["serve", "/models/tiny"]
    assert argv[-2:] == ["--max-num-seqs=8", "--enforce-eager"]
    assert environment["TUNER_RUN_TAG"] == fake.run_tag
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "2"
    assert environment["SOME_SWITCH"] == "1"
    assert str(tmp_path / "ours") not in fake.note("files")
    assert str(plan.log_path) in fake.note("files")


async def test_two_launches_have_two_ports_and_two_names(fake) -> None:
    async with launched(fake.plan()) as one:
        async with launched(fake.plan()) as two:
            assert (one.base_url, one.served_name) != (two.base_url, two.served_name)
        # Stopping one server of the run leaves the other alone.
        assert one.exit_code() is None
        assert len(tagged_processes(fake.run_tag)) == 3


@pytest.mark.parametrize(
    ("log", "kind", "says"),
    [
        ("no-kv-cache", FailureKind.CONFIGURATION, "No available memory for the cache blocks"),
        ("port-taken", FailureKind.INFRASTRUCTURE, "Address already in use"),
    ],
)
async def test_a_refusal_is_told_from_the_log(fake, log, kind, says) -> None:
    plan = fake.plan(refuse=str(LOGS / f"{log}.log"), stop_grace_s=0.2)
    with pytest.raises(LaunchFailedError, match=says) as caught:
        async with launched(plan):
            pytest.fail("it never was ready")
    assert caught.value.failure.kind is kind
    assert caught.value.failure.log_path == plan.log_path
    assert tagged_processes(fake.run_tag) == ()


async def test_a_secret_of_the_environment_is_not_in_the_reason(fake, tmp_path) -> None:
    (tmp_path / "said").write_text("ValueError: cannot use token hunter2hunter2")
    plan = fake.plan(
        refuse=str(tmp_path / "said"),
        stop_grace_s=0,
        environment={"HF_TOKEN": "hunter2hunter2"},
    )
    with pytest.raises(LaunchFailedError) as caught:
        async with launched(plan):
            pass
    assert "cannot use token ***" in caught.value.failure.reason
    assert plan.log_path.read_text().strip() == "ValueError: cannot use token ***"


async def test_a_secret_is_not_in_the_log_of_a_server_that_cannot_be_killed(
    fake, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def survived(*words: Any, **more: Any) -> int:
        stop_tagged(*words, **more)
        raise OperatorNeededError("VLLM::EngineCore (pid 7) cannot be killed")

    monkeypatch.setattr("tuner.servers.launch.stop_tagged", survived)
    (tmp_path / "said").write_text("ValueError: cannot use token hunter2hunter2")
    plan = fake.plan(
        refuse=str(tmp_path / "said"),
        stop_grace_s=0,
        environment={"HF_TOKEN": "hunter2hunter2"},
    )
    with pytest.raises(OperatorNeededError, match="cannot be killed"):
        async with launched(plan):
            pass
    assert plan.log_path.read_text().strip() == "ValueError: cannot use token ***"


async def test_a_crash_without_words_is_unstable(fake) -> None:
    with pytest.raises(LaunchFailedError, match="killed by SIGILL; its log is empty") as caught:
        async with launched(fake.plan(die_by=int(signal.SIGILL), stop_grace_s=0)):
            pass
    assert caught.value.failure.kind is FailureKind.UNSTABLE


async def test_a_start_that_never_ends_is_ended(fake) -> None:
    with pytest.raises(LaunchFailedError, match="not ready before its deadline") as caught:
        async with launched(fake.plan(hang=True, startup_deadline_s=0.5)):
            pass
    assert caught.value.failure.kind is FailureKind.UNSTABLE
    assert tagged_processes(fake.run_tag) == ()


async def test_a_server_that_ignores_term_is_killed_after_the_grace(fake) -> None:
    async with launched(fake.plan(ignore_term=True, stop_grace_s=0.4)) as server:
        began_s = time.monotonic()
    assert server.exit_code() == -signal.SIGKILL
    assert time.monotonic() - began_s >= 0.4
    assert tagged_processes(fake.run_tag) == ()


async def test_workers_in_their_own_session_are_found(fake) -> None:
    async with launched(fake.plan(leave_children=True, stop_grace_s=0.3)) as server:
        sessions = {os.getsid(p.pid) for p in tagged_processes(fake.run_tag)}
        assert len(sessions) == 2
    assert server.exit_code() == 0
    assert tagged_processes(fake.run_tag) == ()


async def test_an_orphan_without_the_tag_goes_with_the_group(fake) -> None:
    async with launched(fake.plan(bare_child=True, stop_grace_s=0.3)) as server:
        bare = fake.note("bare")
        os.kill(server.pid, signal.SIGKILL)
        assert wait_until(lambda: server.exit_code() is not None, 5.0)
        assert bare not in {p.pid for p in tagged_processes(fake.run_tag)}
        assert process_named(bare) == "sleep"
    assert wait_until(lambda: process_named(bare) is None, 5.0)


async def test_a_server_killed_under_load_shows_its_exit_and_leaves_nothing(fake) -> None:
    async with launched(fake.plan(stop_grace_s=0.3)) as server:
        os.kill(server.pid, signal.SIGKILL)
        assert wait_until(lambda: server.exit_code() == -signal.SIGKILL, 5.0)
        assert len(tagged_processes(fake.run_tag)) == 2
    assert tagged_processes(fake.run_tag) == ()


async def test_an_error_of_the_caller_stops_the_server(fake) -> None:
    with pytest.raises(ZeroDivisionError):
        async with launched(fake.plan()):
            raise ZeroDivisionError
    assert tagged_processes(fake.run_tag) == ()


@pytest.mark.parametrize("cancels", [1, 3])
async def test_cancelled_while_starting_leaves_nothing(fake, cancels) -> None:
    async def start() -> None:
        async with launched(fake.plan(hang=True, ignore_term=True, stop_grace_s=0.5)):
            pytest.fail("it never was ready")

    task = asyncio.create_task(start())
    for _ in range(100):
        await asyncio.sleep(0.05)
        if len(tagged_processes(fake.run_tag)) == 3:
            break
    for _ in range(cancels):  # an impatient user
        task.cancel()
        await asyncio.sleep(0.05)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tagged_processes(fake.run_tag) == ()


async def test_a_flood_of_output_does_not_block_the_server(fake) -> None:
    plan = fake.plan(flood=5_000_000)
    async with launched(plan) as server:
        assert server.exit_code() is None
    assert plan.log_path.stat().st_size > 5_000_000
    assert len(read_log(plan.log_path)) < 2_000_000


async def test_a_port_that_opens_late_is_waited_for(fake) -> None:
    async with launched(fake.plan(late_s=0.6)) as server:
        assert server.exit_code() is None


async def test_another_server_on_the_port_is_not_measured(fake) -> None:
    with pytest.raises(LaunchFailedError, match="it serves somebody-else instead of") as caught:
        async with launched(fake.plan(name="somebody-else")):
            pass
    assert caught.value.failure.kind is FailureKind.INFRASTRUCTURE


async def test_a_taken_port_is_refused_before_anything_starts(fake) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PreflightError, match=f"port {port} on 127.0.0.1 cannot be used"):
            async with launched(fake.plan(port=port)):
                pass
    assert not (fake.folder / "argv").exists()
    assert usable_port(port) == port


async def test_a_command_that_cannot_run_is_refused(fake, tmp_path) -> None:
    plan = replace(fake.plan(), server=VllmServer((str(tmp_path / "nothing"),), "0"))
    with pytest.raises(PreflightError, match=r"cannot start .*nothing"):
        async with launched(plan):
            pass


@given(
    secret=st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=4),
    name=st.sampled_from(["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "OPENAI_API_KEY"]),
)
def test_no_secret_is_shown(secret: str, name: str) -> None:
    assert secret not in without_secrets(f"a {secret} b{secret}", {name: secret})
    assert without_secrets(secret, {"HOME": secret}) == secret


@pytest.mark.parametrize("size", [0, 10, 262_144, 1_300_000, 3_000_000])
def test_the_log_is_read_without_a_gap_until_it_is_huge(tmp_path, size: int) -> None:
    path = tmp_path / "log"
    content = "".join(chr(97 + i % 26) for i in range(size))
    path.write_text(content)
    found = read_log(path)
    assert found == content if size < 1_310_000 else content.endswith(found[-1_000_000:])
    assert read_log(tmp_path / "none") == ""
