"""The store and what a crash left: leases, records, servers, trials that were cut off."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from helpers.fake_limits import FakeGpu, FakeLimits
from helpers.records import IDENTITY, OWNER
from helpers.stored_study import add_night, configuration

from tuner.devices.leases.lease_book import LeaseBook
from tuner.doctor.leftovers import check_leftovers
from tuner.doctor.stores import check_store
from tuner.host.finding import Finding, Level
from tuner.host.process import Owner, this_owner
from tuner.servers.guardian.run_records import register
from tuner.servers.processes import Process
from tuner.store import Store, study_lock

GPU = "GPU-1111-aa"


def none() -> tuple[Process, ...]:
    return ()


def dead() -> Owner:
    return replace(this_owner("night-1"), start_ticks=1)


def lease(folder: Path, owner: Owner) -> None:
    LeaseBook(folder).take(FakeLimits.of(FakeGpu(GPU)), GPU, owner)


def one(findings: list[Finding]) -> Finding:
    (found,) = findings
    return found


def test_nothing_is_left(tmp_path: Path) -> None:
    assert one(check_leftovers([tmp_path / "none"], none)).level is Level.OK
    assert not (tmp_path / "none").exists()


def test_leases(tmp_path: Path) -> None:
    lease(tmp_path, dead())
    left = one(check_leftovers([tmp_path], none))
    assert (left.level, left.fix) == (Level.WARNING, "tuner gpu restore")
    assert "as a run that died left it" in left.message and "night-1" in left.message


def test_a_lease_of_the_living_of_another_container_and_of_an_earlier_boot(tmp_path: Path) -> None:
    owners = {
        "living": this_owner("now"),
        "elsewhere": replace(this_owner("there"), pid_namespace="pid:[1]"),
        "earlier": replace(dead(), boot_id="another"),
    }
    for name, owner in owners.items():
        lease(tmp_path / name, owner)
    assert one(check_leftovers([tmp_path / "living"], none)).fix == "tuner gpu status"
    assert "--force" in (one(check_leftovers([tmp_path / "elsewhere"], none)).fix or "")
    assert one(check_leftovers([tmp_path / "earlier"], none)).level is Level.OK


def test_a_torn_lease_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "GPU-3.json").write_text("{")
    assert one(check_leftovers([tmp_path], none)).level is Level.PROBLEM


def test_servers_and_records_of_runs(tmp_path: Path) -> None:
    register(tmp_path, dead())
    left = one(check_leftovers([tmp_path], none))
    assert "died without cleaning up" in left.message
    servers = (
        Process(4321, 1, 1, "VLLM::EngineCor", "night-1"),
        Process(4322, 1, 4321, "sleep", ""),
        Process(77, 1, 1, "vllm", "other"),
    )
    ours, foreign = check_leftovers([tmp_path], lambda: servers)
    assert (ours.level, ours.fix) == (Level.WARNING, "kill 4321")
    assert (foreign.fix, "knows nothing" in foreign.message) == ("ps -fp 77", True)


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    register(tmp_path, this_owner("now"))
    server = Process(4321, 1, 1, "vllm", "now")
    found = one(check_leftovers([tmp_path], lambda: (server,)))
    assert (found.check, found.level) == ("runs", Level.WARNING)


def test_stores(tmp_path: Path, fill: Callable[..., None] = add_night) -> None:
    path = tmp_path / "tuner.db"
    assert one(check_store(str(path))).level is Level.OK
    assert not path.exists()
    with Store.open(path, create=True) as store:
        fill(store, IDENTITY)
    assert "holds 1 study" in one(check_store(str(path))).message
    with Store.open(path, create=False) as store:
        store.begin_trial("night", 9, configuration(8, None), baseline=False, owner=OWNER)
    _, cut = check_store(str(path))
    assert (cut.level, cut.fix) == (Level.WARNING, "tuner resume night")
    with study_lock(path, "night"):
        _, held = check_store(str(path))
        assert held.message.endswith(f"is being run by process {os.getpid()}")
        _, stale = check_store(str(path), is_alive=lambda pid: False)
        assert stale.check == "store trials"


def test_a_corrupt_store_and_one_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "tuner.db"
    with Store.open(path, create=True) as store:
        add_night(store, IDENTITY)
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 8] = b"\xa5" * (4096 * 6)
    path.write_bytes(content)
    bad = one(check_store(str(path)))
    assert bad.level is Level.PROBLEM
    assert "corrupt" in bad.message and "tuner store rebuild" in (bad.fix or "")
    assert path.read_bytes() == content
    (tmp_path / "notes").write_text("these are my notes")
    none = one(check_store(str(tmp_path / "notes")))
    assert (none.level, none.fix) == (Level.PROBLEM, "tuner doctor --store ANOTHER.db")


def test_a_database_that_is_not_reached_is_asked_for_where_it_is() -> None:
    found = one(check_store("postgresql://u:secret@127.0.0.1:1/x"))
    assert (found.level, found.fix) == (Level.PROBLEM, "pg_isready -h 127.0.0.1 -p 1")
    assert "secret" not in found.message


def test_every_folder_is_looked_at(tmp_path: Path) -> None:
    lease(tmp_path / "root", dead())
    register(tmp_path / "user", this_owner("now"))
    found = check_leftovers([tmp_path / "user", tmp_path / "root"], none)
    assert {f.check for f in found} == {"leases", "runs"}
