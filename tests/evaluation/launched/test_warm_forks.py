"""Servers of the search are forked if that is asked for; those that are confirmed never are."""

from __future__ import annotations

from pathlib import Path

from helpers.forkable import Bench, answer_of

from tuner.catalog.gpu import load_gpu
from tuner.configuration import Configuration
from tuner.devices.emulated.meters import BusyMeter
from tuner.evaluation.launched.warm_server import LaunchSettings, ServerSpec, WarmServers
from tuner.records import Source

GPU = load_gpu("H100-SXM")


def warm_servers(folder: Path, run_tag: str, *, fork_servers: bool) -> tuple[WarmServers, Bench]:
    bench = Bench(folder, run_tag)
    bench.forks.close()  # the run has its own
    spec = ServerSpec(
        bench.plan().server,
        Source.MEASURED,
        lambda _: BusyMeter(GPU),
        Configuration(),
        {},
    )
    settings = LaunchSettings(run_tag, folder / "run", 60.0, None, fork_servers=fork_servers)
    return WarmServers("tiny", spec, settings), bench


async def forked(servers: WarmServers, number: int, *, confirm: bool = False) -> bool:
    """Get a server for a configuration, and say whether it was forked."""
    whole = Configuration(flags={"max_num_seqs": number})
    get = servers.get_for_repeat if confirm else servers.get
    server = (await get(whole, f"trial-{number}")).server
    found = (await answer_of(server))["found"]
    assert f"--max-num-seqs={number}" in found[0]["argv"]
    return bool(found[0]["pid"] != server.pid)


async def test_the_search_forks_and_the_confirmation_does_not(tmp_path: Path, run_tag: str) -> None:
    servers, bench = warm_servers(tmp_path, run_tag, fork_servers=True)
    try:
        assert not await forked(servers, 1, confirm=True)
        assert await forked(servers, 2)
        before = bench.imports
        assert await forked(servers, 3)
        assert await forked(servers, 4)
        assert bench.imports <= before + 3
        assert not await forked(servers, 4, confirm=True)  # though that one runs already
        assert not await forked(servers, 5, confirm=True)
    finally:
        await servers.end()
    assert not (tmp_path / "run" / "forks").exists()


async def test_nothing_is_forked_unless_it_is_asked_for(tmp_path: Path, run_tag: str) -> None:
    servers, bench = warm_servers(tmp_path, run_tag, fork_servers=False)
    try:
        assert not await forked(servers, 1)
        assert not await forked(servers, 2)
        assert bench.imports == 6
    finally:
        await servers.end()
