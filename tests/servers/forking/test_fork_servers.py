"""Forked servers end, fail and are found as those that are launched in the ordinary way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.forkable import HEAVY, Bench, answer_of

from tuner.servers.forking.fork_server import IMPORTED
from tuner.servers.idle_device import await_idle
from tuner.servers.launch import LaunchFailedError, launched
from tuner.servers.processes import stop_tagged, tagged_processes, wait_until


@pytest.fixture
def bench(tmp_path: Path, run_tag: str) -> Iterator[Bench]:
    bench = Bench(tmp_path, run_tag)
    yield bench
    bench.forks.close()
    assert tagged_processes(run_tag) == ()


def told_apart(found: list[dict[str, object]]) -> list[dict[str, object]]:
    """Return what three processes said, without what differs between two launches."""
    own = ("pid", "tag", "argv", "fds")
    return [{k: v for k, v in one.items() if k not in own} for one in found]


async def test_a_forked_server_is_what_a_launched_one_is_and_imports_nothing(bench: Bench) -> None:
    async with launched(replace(bench.plan(SOME_SWITCH="1"), forks=None)) as server:
        ordinary = await answer_of(server)
    ordinary_log = bench.plan().log_path.read_text()
    assert bench.imports == 3
    for _ in range(3):
        async with launched(bench.plan(SOME_SWITCH="1")) as server:
            forked = await answer_of(server)
            tags = {one["tag"] for one in forked["found"]}
            pids = {one["pid"] for one in forked["found"][:2]}  # the worker has ended
            tagged = tagged_processes(bench.run_tag, launch_tag=server.served_name)
            assert tags == {server.served_name}
            assert pids < {process.pid for process in tagged}
        assert server.exit_code() == 0
        assert tagged_processes(bench.run_tag, launch_tag=server.served_name) == ()
        assert told_apart(forked["found"]) == told_apart(ordinary["found"])
        for one, other in zip(forked["found"], ordinary["found"], strict=True):
            # the tuner's end, and of each process that it has spawned the answers and a handle
            assert len(set(one["fds"]) - set(other["fds"])) <= 3
        assert forked["found"][0]["argv"][:3] == [str(bench.script), "serve", "tiny"]
        assert forked["codes"] == ordinary["codes"] == [5, None, True]
        assert bench.plan().log_path.read_text() == ordinary_log
        assert "the engine ended with -15" in ordinary_log and "atexit" in ordinary_log
    # one fork server for each of the three, or fewer where their variables are the same
    assert 4 <= bench.imports <= 6


async def test_other_variables_are_launched_in_the_ordinary_way(bench: Bench) -> None:
    async with launched(bench.plan(SOME_SWITCH="1")):
        before = bench.imports
    async with launched(bench.plan(SOME_SWITCH="2")) as server:
        found = (await answer_of(server))["found"]
        assert [one["own"] for one in found] == ["2", "2", "2"]
        assert found[0]["pid"] == server.pid
    assert bench.imports == before + 3


@pytest.mark.parametrize(
    ("flag", "code", "says"),
    [("refuse", 3, "max_num_seqs is too many"), ("crash", -11, "SIGSEGV")],
)
async def test_a_forked_server_that_does_not_start_is_told_as_any_other(
    bench: Bench, flag: str, code: int, says: str
) -> None:
    failures = []
    for forks in (None, bench.forks, bench.forks):
        with pytest.raises(LaunchFailedError, match=says) as caught:
            async with launched(replace(bench.plan({flag: 1}), forks=forks)):
                pytest.fail("it never was ready")
        failures.append(caught.value.failure)
    assert failures[0] == failures[1] == failures[2]


async def test_an_import_that_fails_is_told_by_an_ordinary_launch(bench: Bench) -> None:
    (bench.folder / "modules" / "heavy.py").write_text("raise RuntimeError('no such device')")
    with pytest.raises(LaunchFailedError, match="no such device"):
        async with launched(bench.plan()):
            pytest.fail("it never was ready")


async def test_nothing_is_forked_from_a_process_with_threads(bench: Bench) -> None:
    start = "threading.Thread(target=time.sleep, args=(99,), daemon=True).start()"
    threads = f"\nimport threading, time\n{start}"
    (bench.folder / "modules" / "heavy.py").write_text(HEAVY + threads)
    plan = replace(bench.plan(), stop_grace_s=1.0)
    async with launched(plan) as server:
        assert (await answer_of(server))["found"][0]["pid"] == server.pid
    assert "have started" in (bench.folder / "logs" / "forks.log").read_text()


async def test_nothing_is_forked_where_the_kernel_gives_no_handles_of_processes(
    bench: Bench,
) -> None:
    lacks = "\ndef missing(pid):\n    raise OSError(38, 'no such call')\nos.pidfd_open = missing\n"
    (bench.folder / "modules" / "heavy.py").write_text(HEAVY + lacks)
    async with launched(replace(bench.plan(), stop_grace_s=1.0)) as server:
        assert (await answer_of(server))["found"][0]["pid"] == server.pid
    assert "no handles of processes" in (bench.folder / "logs" / "forks.log").read_text()
    assert len(tagged_processes(bench.run_tag)) == 0


async def test_a_killed_fork_server_leaves_nothing_and_ordinary_launches(bench: Bench) -> None:
    async with launched(replace(bench.plan(), stop_grace_s=0.5)) as server:
        own = tagged_processes(bench.run_tag, launch_tag=server.served_name)
        for process in tagged_processes(bench.run_tag, launch_tag=IMPORTED):
            if process not in own:
                os.kill(process.pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        assert server.exit_code() is None
        await answer_of(server)  # it serves all the same
    assert tagged_processes(bench.run_tag, launch_tag=server.served_name) == ()
    async with launched(bench.plan()) as server:
        assert (await answer_of(server))["found"][0]["pid"] == server.pid


async def test_a_launch_that_is_given_up_during_the_imports_is_not_made_later(
    bench: Bench,
) -> None:
    slow = "\nimport time\ntime.sleep(2.0)"
    (bench.folder / "modules" / "heavy.py").write_text(HEAVY + slow)
    launch = asyncio.create_task(launched(bench.plan()).__aenter__())
    assert await asyncio.to_thread(wait_until, lambda: bench.imports == 1, 30.0)
    launch.cancel()
    await asyncio.wait([launch])
    await asyncio.sleep(3.0)
    (imported,) = tagged_processes(bench.run_tag)
    assert imported in tagged_processes(bench.run_tag, launch_tag=IMPORTED)


async def test_a_killed_forked_server_has_ended_by_that_signal(bench: Bench) -> None:
    async with launched(bench.plan()) as server:
        pid = (await answer_of(server))["found"][0]["pid"]
        os.kill(pid, signal.SIGKILL)
        assert await asyncio.to_thread(wait_until, lambda: server.exit_code() is not None, 5.0)
        assert server.exit_code() == -signal.SIGKILL
    assert tagged_processes(bench.run_tag, launch_tag=server.served_name) == ()


async def test_the_wait_for_idle_gpus_spares_fork_servers_and_no_leftover(bench: Bench) -> None:
    async with launched(bench.plan()) as server:
        await await_idle(bench.run_tag, {}, list)
        assert tagged_processes(bench.run_tag, launch_tag=server.served_name) == ()
        assert tagged_processes(bench.run_tag, launch_tag=IMPORTED) != ()


TUNER = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from helpers.forkable import Bench
from tuner.servers.guardian.guardian import guarded
from tuner.servers.launch import launched

async def main():
    folder = Path(sys.argv[2])
    async with guarded(sys.argv[3], log_path=folder / "guardian.log", state_folder=folder / "state",
                       gpu_memory_bytes={}) as guardian:
        async with launched(Bench(folder, sys.argv[3]).plan()):
            print(guardian.pid, flush=True)
            await asyncio.sleep(100)

asyncio.run(main())
"""


@pytest.mark.parametrize("killed", ["tuner", "tuner and guardian"])
def test_nothing_is_left_of_a_killed_tuner(tmp_path: Path, run_tag: str, killed: str) -> None:
    words = [sys.executable, "-c", TUNER, str(Path(__file__).parents[2]), str(tmp_path), run_tag]
    tuner = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert tuner.stdout is not None
    with tuner.stdout:
        guardian = int(tuner.stdout.readline())
        assert len(tagged_processes(run_tag)) >= 5
        if killed != "tuner":
            os.kill(guardian, signal.SIGKILL)
        tuner.kill()
    tuner.wait()
    if killed == "tuner":
        assert wait_until(lambda: not tagged_processes(run_tag), 30.0)
    else:  # the next run does it
        assert stop_tagged(run_tag, grace_s=5.0) > 0
    assert wait_until(lambda: not tagged_processes(run_tag, launch_tag=IMPORTED), 5.0)
