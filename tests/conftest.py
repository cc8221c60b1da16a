"""No test reads or changes a real GPU: a stand-in for its library comes first for every process."""

import os
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from helpers.nvml_standin.standin import library_folder
from hypothesis import HealthCheck, settings
from optuna.storages._rdb.storage import _VersionManager

from tuner.host.collector import collect_rarely, collector_paused
from tuner.servers.processes import stop_tagged, tagged_processes

# the same examples in every run: a failure is there for everybody, or for nobody
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],  # as is every test on a busy machine
)
settings.load_profile("repeatable")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell's background job; is inherited
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what mostly waits: one worker does that while the others compute."""
    items.sort(key=lambda item: item.get_closest_marker("waits") is None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage, which took a fifth of the time, and seldom later: these objects stay.

    Frozen ones would be seen by no `gc.get_referrers`, with which Hypothesis looks at its own.
    """
    with collector_paused():
        result = yield
    collect_rarely()
    return result


@pytest.fixture(scope="session", autouse=True)
def optunas_migrations_read_once() -> Iterator[None]:
    """Read its scripts once, not thrice for each store: that takes as long as a trial here."""
    read = _VersionManager._create_alembic_script
    scripts: list[ScriptDirectory] = []

    def first_read(manager: _VersionManager) -> ScriptDirectory:
        if not scripts:
            scripts.append(read(manager))
        return scripts[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "_create_alembic_script", first_read)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_real_gpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNER_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        patch.setenv("TUNER_CONFIG", "")  # the settings of whoever runs the tests stay out
        patch.delenv("NVML_STANDIN_STATE", raising=False)
        if shutil.which("cc"):  # the stand-in is built with it
            patch.setenv("LD_LIBRARY_PATH", str(library_folder()))
        else:
            assert not Path("/dev/nvidiactl").exists(), "a GPU, and no compiler for its stand-in"
        yield


@pytest.fixture
def run_tag(tmp_path: Path) -> Iterator[str]:
    """A tag of this test alone; the test fails if a process that carries it is left."""
    tag = f"test-{os.getpid()}-{tmp_path.name}"
    yield tag
    left = tagged_processes(tag)
    stop_tagged(tag, grace_s=0)
    assert left == ()
