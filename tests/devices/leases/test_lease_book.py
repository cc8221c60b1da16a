from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.fake_limits import FakeGpu, FakeLimits, hold_leases

from tuner.devices.leases.lease_book import LeaseBook, leased
from tuner.devices.leases.lease_files import LimitSettings, lease_path, lease_text, read_entry
from tuner.devices.leases.restoring import RestoreAction
from tuner.devices.limit_control import PermissionDeniedError
from tuner.errors import OperatorNeededError, PreflightError, UsageError
from tuner.host import locks
from tuner.host.durable_files import write_durably
from tuner.host.locks import locked_folder
from tuner.host.process import Owner, OwnerState, owner_state, this_owner
from tuner.host.state_folder import state_folder

ONE, TWO = "GPU-1111-aa", "GPU-2222-bb"


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu(ONE)


@pytest.fixture
def control(gpu: FakeGpu) -> FakeLimits:
    return FakeLimits.of(gpu)


@pytest.fixture
def book(tmp_path: Path) -> LeaseBook:
    return LeaseBook(tmp_path / "state")


@pytest.fixture
def owner() -> Owner:
    return this_owner("night")


@pytest.fixture
def dead() -> Owner:
    """An owner that lived a moment ago."""
    process = subprocess.Popen(["sleep", "60"])
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    ticks = int(stat.rpartition(")")[2].split()[19])
    found = replace(this_owner("crashed"), pid=process.pid, start_ticks=ticks)
    assert owner_state(found) is OwnerState.LIVING
    process.kill()
    process.wait()
    return found


@pytest.fixture
def small_files() -> Iterator[None]:
    """A full disk: no byte can be written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def crash_with(book: LeaseBook, control: FakeLimits, dead: Owner, watts: float = 300.0) -> None:
    """Do what a tuner does that is then killed."""
    lease = book.take(control, ONE, dead)
    book.set_limits(control, lease, power_limit_w=watts, sm_clock_mhz=1200)
    # what a control knows of its own lock dies with its process
    control._locked_here.clear()


def actions(outcomes: list) -> list[RestoreAction]:
    return [outcome.action for outcome in outcomes]


def test_found_and_not_default_is_put_back(book, control, gpu, owner) -> None:
    lease = book.take(control, ONE, owner)
    assert (lease.found, lease.set) == (LimitSettings(600.0, None), LimitSettings(None, None))
    lease = book.set_limits(control, lease, power_limit_w=350.0, sm_clock_mhz=1200)
    assert (gpu.limit_w, gpu.locked_mhz) == (350.0, 1200)
    (entry,) = book.entries()
    assert entry.lease == lease
    assert lease.set == LimitSettings(350.0, 1200)
    book.give_back(control, lease)
    assert (gpu.limit_w, gpu.locked_mhz) == (600.0, None)
    assert book.entries() == ()


def test_what_was_found_is_on_disk_before_anything_is_set(book, control, gpu, owner) -> None:
    class Watching(FakeLimits):
        def set_power_limit(self, uuid: str, watts: float) -> None:
            seen.append(read_entry(lease_path(book.folder, uuid)).lease)
            super().set_power_limit(uuid, watts)

        def lock_sm_clock(self, uuid: str, mhz: int) -> None:
            seen.append(read_entry(lease_path(book.folder, uuid)).lease)
            super().lock_sm_clock(uuid, mhz)

    seen: list = []
    watching = Watching(control.gpus)
    lease = book.take(watching, ONE, owner)
    book.set_limits(watching, lease, power_limit_w=350.0, sm_clock_mhz=1200)
    assert [s.found for s in seen] == [LimitSettings(600.0, None)] * 2
    assert [s.set for s in seen] == [LimitSettings(350.0, None), LimitSettings(350.0, 1200)]


def test_a_living_owner_keeps_others_out(book, control, owner) -> None:
    book.take(control, ONE, owner)
    with pytest.raises(PreflightError, match=rf"in use by process {os.getpid()} .*night"):
        book.take(control, ONE, this_owner("other"))
    (outcome,) = book.restore_all(control.opened)
    assert outcome.action is RestoreAction.LEFT_ALONE
    assert len(book.entries()) == 1


def test_the_dead_owners_found_value_is_kept(book, control, gpu, owner, dead) -> None:
    crash_with(book, control, dead)
    assert gpu.limit_w == 300.0
    lease = book.take(control, ONE, owner)
    assert lease.found == LimitSettings(600.0, None)
    assert lease.owner == owner
    book.give_back(control, lease)
    assert (gpu.limit_w, gpu.locked_mhz) == (600.0, None)


def test_taking_over_from_the_dead_and_applying_nothing_puts_back(
    book, control, gpu, owner, dead
) -> None:
    crash_with(book, control, dead)
    with leased(control, [ONE], owner, book) as limits:
        limits.apply()
        assert (gpu.limit_w, gpu.locked_mhz) == (600.0, None)


def test_what_the_dead_left_is_mended_from_the_file_alone(book, control, gpu, dead) -> None:
    crash_with(book, control, dead)
    (outcome,) = LeaseBook(book.folder).restore_all(FakeLimits(control.gpus).opened)
    assert outcome.action is RestoreAction.RESTORED
    assert "600 W" in outcome.message
    assert (gpu.limit_w, gpu.locked_mhz) == (600.0, None)
    assert book.entries() == ()
    assert book.restore_all(control.opened) == []


def test_a_found_clock_lock_is_put_back(book, control, gpu, owner) -> None:
    control.lock_sm_clock(ONE, 1500)
    with leased(control, [ONE], owner, book) as limits:
        assert limits.leases[0].found == LimitSettings(600.0, 1500)
        limits.apply(sm_clock_mhz=900)
        assert gpu.locked_mhz == 900
    assert gpu.locked_mhz == 1500


@pytest.mark.parametrize("killed_before", ["power", "lock"])
def test_killed_between_the_note_and_the_change(book, control, gpu, dead, killed_before) -> None:
    class Killed(Exception):
        pass

    class Dying(FakeLimits):
        def _to_change(self, uuid: str, call: str) -> FakeGpu:
            if call.startswith(killed_before):
                raise Killed
            return super()._to_change(uuid, call)

    dying = Dying(control.gpus)
    lease = book.take(dying, ONE, dead)
    with pytest.raises(Killed):
        book.set_limits(dying, lease, power_limit_w=300.0, sm_clock_mhz=1200)
    assert actions(book.restore_all(control.opened)) == [RestoreAction.RESTORED]
    assert (gpu.limit_w, gpu.locked_mhz) == (600.0, None)


def test_another_boot_is_only_reported(book, control, gpu, dead) -> None:
    crash_with(book, control, replace(dead, boot_id="before"))
    control.calls.clear()
    (outcome,) = book.restore_all(control.opened)
    assert outcome.action is RestoreAction.REMOVED
    assert "restarted" in outcome.message
    assert control.calls == []
    assert gpu.limit_w == 300.0
    assert book.entries() == ()


def test_what_another_boot_found_is_not_believed(book, control, gpu, owner, dead) -> None:
    crash_with(book, control, replace(dead, boot_id="before"))
    gpu.limit_w = 650.0
    assert book.take(control, ONE, owner).found == LimitSettings(650.0, None)


def test_a_lease_of_another_machine_in_a_shared_folder_is_left_alone(book, control, dead) -> None:
    crash_with(book, control, replace(dead, boot_id="other", host="other"))
    for seen in (FakeLimits.of(FakeGpu(TWO)), FakeLimits.of()):
        (outcome,) = book.restore_all(seen.opened, force=True)
        assert outcome.action is RestoreAction.LEFT_ALONE
        assert "another machine, other" in outcome.message
    assert len(book.entries()) == 1


@pytest.mark.parametrize("where", [{"host": "container"}, {"pid_namespace": "pid:[1]"}])
def test_an_owner_that_cannot_be_seen_counts_as_living(
    book, control, gpu, owner, dead, where
) -> None:
    crash_with(book, control, replace(dead, **where))
    with pytest.raises(PreflightError, match=r"cannot be seen from here.*--force"):
        book.take(control, ONE, owner)
    assert actions(book.restore_all(control.opened)) == [RestoreAction.LEFT_ALONE]
    assert gpu.limit_w == 300.0
    assert actions(book.restore_all(control.opened, force=True)) == [RestoreAction.RESTORED]
    assert gpu.limit_w == 600.0


def test_a_recycled_pid_and_a_zombie_are_dead(owner) -> None:
    assert owner_state(owner) is OwnerState.LIVING
    assert owner_state(replace(owner, start_ticks=owner.start_ticks - 1)) is OwnerState.DEAD
    process = subprocess.Popen([sys.executable, "-IS", "-c", "input()"], stdin=subprocess.PIPE)
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    child = replace(owner, pid=process.pid, start_ticks=int(stat.rpartition(")")[2].split()[19]))
    assert owner_state(child) is OwnerState.LIVING
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert owner_state(child) is OwnerState.DEAD
    process.communicate()


def test_force_takes_the_lease_from_the_living_which_then_notice(book, control, gpu, owner) -> None:
    with leased(control, [ONE], owner, book) as limits:
        limits.apply(power_limit_w=300.0)
        assert actions(book.restore_all(control.opened, force=True)) == [RestoreAction.RESTORED]
        assert gpu.limit_w == 600.0
        with pytest.raises(OperatorNeededError, match="was taken away"):
            limits.apply(power_limit_w=400.0)
        assert gpu.limit_w == 600.0
        theirs = book.take(control, ONE, this_owner("other"))
        book.set_limits(control, theirs, power_limit_w=250.0, sm_clock_mhz=None)
    assert gpu.limit_w == 250.0  # it is theirs now
    assert [e.lease.owner.run_tag for e in book.entries()] == ["other"]


def test_only_the_leases_of_the_run_asked_for(book, gpu, dead, owner) -> None:
    control = FakeLimits.of(gpu, FakeGpu(TWO))
    crash_with(book, control, dead)
    book.take(control, TWO, replace(dead, run_tag="elsewhere"))
    assert book.restore_run(control.opened, TWO, "crashed") is None
    assert book.restore_run(control.opened, "GPU-3", "crashed") is None
    outcome = book.restore_run(control.opened, ONE, "crashed")
    assert outcome is not None
    assert (outcome.gpu, outcome.action) == (ONE, RestoreAction.RESTORED)
    assert [lease.uuid for lease in book.of_run("elsewhere")] == [TWO]
    assert book.of_run("crashed") == ()
    assert [e.lease.uuid for e in book.entries()] == [TWO]


def good_text(book: LeaseBook, control: FakeLimits, owner: Owner) -> str:
    text = lease_text(book.take(control, ONE, owner))
    lease_path(book.folder, ONE).unlink()
    return text


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace("600.0", '"600"'),
        lambda text: text.replace("600.0", "NaN"),
        lambda text: text.replace("600.0", "-1"),
        lambda text: text.replace('"pid"', '"process"'),
        lambda text: text.replace(ONE, TWO),
        lambda text: text.replace(ONE, "../../etc"),
        lambda text: text.replace('"gpu": {', '"gpu": 1, "x": {'),
        lambda text: "\udcff",
    ],
)
def test_a_torn_or_foreign_file_is_reported(book, control, gpu, owner, spoil) -> None:
    text = spoil(good_text(book, control, owner))
    path = lease_path(book.folder, ONE)
    path.write_bytes(text.encode(errors="surrogateescape"))
    for force in (False, True):
        (outcome,) = book.restore_all(control.opened, force=force)
        assert outcome.action is RestoreAction.UNREADABLE
        assert str(path) in outcome.message
    (entry,) = book.entries()
    assert entry.lease is None
    assert entry.problem
    with pytest.raises(PreflightError, match="limits of the GPU are unknown"):
        book.take(control, ONE, owner)
    assert path.exists()
    assert control.calls == []


def test_reading_gives_back_what_was_written(book, control, owner) -> None:
    lease = book.take(control, ONE, owner)
    lease = book.set_limits(control, lease, power_limit_w=312.5, sm_clock_mhz=1215)
    path = lease_path(book.folder, ONE)
    assert read_entry(path).lease == lease
    assert json.loads(path.read_text())["found"] == {"power_limit_w": 600.0, "sm_clock_mhz": None}


def test_a_half_written_lease_is_no_lease(book, control, gpu, owner, monkeypatch) -> None:
    lease = book.take(control, ONE, owner)

    def dies(self: Path, target: Path) -> None:
        raise OSError(errno.EIO, "killed here")

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(OperatorNeededError, match="killed here"):
        book.set_limits(control, lease, power_limit_w=300.0, sm_clock_mhz=None)
    monkeypatch.undo()
    (entry,) = book.entries()
    assert entry.lease == lease
    assert gpu.limit_w == 600.0


def test_a_full_disk_when_taking_changes_nothing(book, control, gpu, owner, small_files) -> None:
    with (
        pytest.raises(PreflightError, match=r"File too large.*nothing was changed"),
        leased(control, [ONE], owner, book) as limits,
    ):
        limits.apply(power_limit_w=300.0)
    assert control.calls == []
    assert gpu.limit_w == 600.0
    assert [p.name for p in book.folder.iterdir()] == [".lock"]


def test_a_full_disk_when_setting_changes_nothing(book, control, gpu, owner) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with leased(control, [ONE], owner, book) as limits:
        limits.apply(power_limit_w=400.0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            with pytest.raises(OperatorNeededError, match="File too large"):
                limits.apply(power_limit_w=400.0, sm_clock_mhz=1200)
            assert (gpu.limit_w, gpu.locked_mhz) == (400.0, None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert gpu.limit_w == 600.0
    assert book.entries() == ()


def test_giving_back_needs_no_space(book, control, gpu, owner) -> None:
    lease = book.take(control, ONE, owner)
    lease = book.set_limits(control, lease, power_limit_w=400.0, sm_clock_mhz=1200)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        book.give_back(control, lease)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (gpu.limit_w, gpu.locked_mhz) == (600.0, None)


def test_a_folder_that_cannot_be_made(tmp_path, control, owner) -> None:
    (tmp_path / "file").write_text("")
    book = LeaseBook(tmp_path / "file" / "state")
    with pytest.raises(PreflightError, match=r"nothing was changed.*TUNER_STATE_DIR"):
        book.take(control, ONE, owner)
    assert control.calls == []


def test_permission_denied_leaves_nothing_to_put_back(book, control, gpu, owner) -> None:
    gpu.permitted = False
    with (
        pytest.raises(PermissionDeniedError),
        leased(control, [ONE], owner, book) as limits,
    ):
        limits.apply(power_limit_w=300.0, sm_clock_mhz=1200)
    assert control.calls == ["power 300"]
    with (
        pytest.raises(PermissionDeniedError),
        leased(control, [ONE], owner, book) as limits,
    ):
        limits.apply(sm_clock_mhz=1200)
    assert control.calls == ["power 300", "lock 1200"]
    assert book.entries() == ()


def test_permission_lost_after_setting_keeps_the_lease(book, control, gpu, owner) -> None:
    with (
        pytest.raises(OperatorNeededError, match=r"could not be put back to 600 W.*only root"),
        leased(control, [ONE], owner, book) as limits,
    ):
        limits.apply(power_limit_w=300.0)
        gpu.permitted = False
    (entry,) = book.entries()
    assert entry.lease.found == LimitSettings(600.0, None)
    gpu.permitted = True
    assert actions(book.restore_all(control.opened, force=True)) == [RestoreAction.RESTORED]
    assert gpu.limit_w == 600.0


def test_the_lease_stays_until_the_limit_reads_back(book, control, gpu, owner) -> None:
    lease = book.take(control, ONE, owner)
    lease = book.set_limits(control, lease, power_limit_w=300.0, sm_clock_mhz=1200)
    gpu.stubborn = True
    with pytest.raises(OperatorNeededError, match="did not go back to 600 W"):
        book.give_back(control, lease)
    gpu.limit_w = 600.0
    with pytest.raises(OperatorNeededError, match="still locked to 1200 MHz"):
        book.give_back(control, lease)
    assert len(book.entries()) == 1
    gpu.stubborn = False
    book.give_back(control, lease)
    assert book.entries() == ()
    book.give_back(control, lease)  # twice is once


def test_a_limit_that_is_refused_does_not_keep_the_clock_locked(
    book, control, gpu, owner, monkeypatch
) -> None:
    lease = book.take(control, ONE, owner)
    lease = book.set_limits(control, lease, power_limit_w=300.0, sm_clock_mhz=1200)

    def refuse(_: object, uuid: str, watts: float) -> None:
        raise OperatorNeededError(f"{watts:g} W is not taken")

    with monkeypatch.context() as patched:
        patched.setattr(FakeLimits, "set_power_limit", refuse)
        with pytest.raises(OperatorNeededError, match="600 W is not taken"):
            book.give_back(control, lease)
    assert (gpu.limit_w, gpu.locked_mhz) == (300.0, None)
    assert len(book.entries()) == 1  # for `tuner gpu restore`


def test_a_value_out_of_range_is_put_right(book, control, gpu, owner) -> None:
    with leased(control, [ONE], owner, book) as limits:
        limits.apply(power_limit_w=300.0)
        with pytest.raises(UsageError):
            limits.apply(power_limit_w=400.0, sm_clock_mhz=99)
        limits.apply()
        assert (gpu.limit_w, gpu.locked_mhz) == (600.0, None)
        (lease,) = limits.leases
        assert lease.set == LimitSettings(None, None)
    assert book.entries() == ()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_every_gpu_is_put_back_whatever_ends_it(book, gpu, owner, error) -> None:
    other = FakeGpu(TWO, limit_w=500.0)
    control = FakeLimits.of(gpu, other)
    with pytest.raises(error), leased(control, [ONE, TWO], owner, book) as limits:
        limits.apply(power_limit_w=300.0, sm_clock_mhz=1200)
        assert (gpu.limit_w, other.limit_w) == (300.0, 300.0)
        raise error
    assert (gpu.limit_w, other.limit_w) == (600.0, 500.0)
    assert (gpu.locked_mhz, other.locked_mhz) == (None, None)
    assert book.entries() == ()


def test_one_lost_gpu_does_not_keep_the_other_from_being_put_back(book, gpu, owner) -> None:
    other = FakeGpu(TWO)
    control = FakeLimits.of(gpu, other)
    with (
        pytest.raises(OperatorNeededError, match="lost"),
        leased(control, [ONE, TWO], owner, book) as limits,
    ):
        limits.apply(power_limit_w=300.0)
        other.lost = True
    assert gpu.limit_w == 600.0
    assert [e.lease.uuid for e in book.entries()] == [TWO]
    assert actions(book.restore_all(control.opened, force=True)) == [RestoreAction.FAILED]
    other.lost = False
    assert actions(book.restore_all(control.opened, force=True)) == [RestoreAction.RESTORED]
    assert other.limit_w == 600.0


def test_a_second_gpu_that_is_taken_gives_the_first_back(book, gpu, owner) -> None:
    control = FakeLimits.of(gpu, FakeGpu(TWO))
    book.take(control, TWO, this_owner("other"))
    with pytest.raises(PreflightError), leased(control, [ONE, TWO], owner, book):
        pytest.fail("began")
    assert [e.lease.uuid for e in book.entries()] == [TWO]


def test_without_nvml_a_lease_is_kept(book, control, dead) -> None:
    crash_with(book, control, dead)
    for seen in (FakeLimits.of(), FakeLimits.of(FakeGpu(TWO))):
        assert actions(book.restore_all(seen.opened)) == [RestoreAction.FAILED]
    assert len(book.entries()) == 1


@pytest.mark.parametrize("uuid", ["", "0", "MIG-1234", "GPU-../x", "GPU-", "GPU-1\n"])
def test_only_a_gpus_uuid_names_a_file(tmp_path, uuid) -> None:
    with pytest.raises(ValueError, match="UUID of a whole GPU"):
        lease_path(tmp_path, uuid)


def test_where_the_state_is(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TUNER_STATE_DIR", str(tmp_path))
    assert state_folder() == tmp_path
    monkeypatch.delenv("TUNER_STATE_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert state_folder() == Path("/var/lib/tuner")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert state_folder() == Path("/state/tuner")
    for useless in ("relative", ""):
        monkeypatch.setenv("XDG_STATE_HOME", useless)
        assert state_folder() == Path("/home/me/.local/state/tuner")


def test_a_held_lock_is_not_waited_for_for_ever(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(locks, "_LOCK_DEADLINE_S", 0.2)
    with (
        locked_folder(tmp_path),
        pytest.raises(OperatorNeededError, match=re.escape(str(tmp_path / ".lock"))),
        locked_folder(tmp_path),
    ):
        pytest.fail("two hold it")
    with locked_folder(tmp_path):  # given back
        pass


def test_a_failed_write_leaves_the_old_file(tmp_path, small_files) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(OSError, match="File too large"):
        write_durably(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_of_many_at_once_one_gets_it(tmp_path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, counts = context.Barrier(4), context.Array("i", [0, 0])
    arguments = (str(tmp_path / "state"), barrier, counts)
    started = [context.Process(target=hold_leases, args=arguments) for _ in range(4)]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        assert process.exitcode == 0
    holders, most_at_once = counts
    assert holders >= 1
    assert most_at_once == 1
    assert LeaseBook(tmp_path / "state").entries() == ()
