"""The wheel and the sdist, installed as users do: into a venv, with --target, with --user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import tuner

ROOT = Path(tuner.__file__).parents[1]
pytestmark = [pytest.mark.package, pytest.mark.timeout(900)]


@dataclass(frozen=True, slots=True)
class Install:
    """One way in which the package was installed, and how its command is called."""

    folder: Path
    script: Path
    python: Path
    environment: dict[str, str] = field(default_factory=dict)


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Return what a command prints; it does not see this checkout."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from the checkout, and the wheel from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(dist: Path) -> Path:
    (found,) = dist.glob("*.tar.gz")
    return found


def data_files() -> set[str]:
    """Return the files of the package that are no Python, as paths below `tuner/`'s parent."""
    found = [path for folder in (tuner_folder(), *linked_folders()) for path in folder.rglob("*")]
    return {
        str(path.relative_to(ROOT))
        for path in found
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }


def tuner_folder() -> Path:
    return ROOT / "tuner"


def linked_folders() -> list[Path]:
    return [path for path in tuner_folder().iterdir() if path.is_symlink()]


def test_the_wheel_holds_every_data_file_and_nothing_else_beside_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = {m.filename: archive.read(m) for m in archive.infolist() if not m.is_dir()}
    assert {
        name.split("/")[0].removesuffix(f"-{tuner.__version__}.dist-info") for name in members
    } == {"tuner"}
    expected = data_files()
    assert {"tuner/workloads/chat.yaml", "tuner/search_spaces/default.yaml"} <= expected
    for name in expected:
        assert members[name] == (ROOT / name).read_bytes(), name
    licences = f"tuner-{tuner.__version__}.dist-info/licenses"
    assert {f"{licences}/LICENSE", f"{licences}/tuner/report/html/plotly/LICENSE"} <= set(members)


def test_the_sdist_holds_what_a_contributor_needs(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        members = {m.name.partition("/")[2]: m for m in archive.getmembers()}
    for name in (
        "Makefile",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        ".ci/run",
        "docs/measuring.md",
        "benchmarks/bench_start.py",
        "tests/conftest.py",
        "tests/helpers/nvml_standin/__init__.py",
        "workloads/chat.yaml",
        "tuner/workloads/chat.yaml",
    ):
        assert members[name].isfile(), name
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")}
    assert tests <= set(members)


def new_venv(folder: Path, *options: str) -> Path:
    run(sys.executable, "-m", "venv", *options, folder, cwd=folder.parent)
    return folder / "bin" / "python"


def plain(folder: Path, package: Path) -> Install:
    python = new_venv(folder / "venv")
    run(python, "-m", "pip", "install", "--quiet", package, cwd=folder)
    return Install(folder / "venv", folder / "venv/bin/tuner", python)


def into_a_target(folder: Path, package: Path) -> Install:
    python, target = new_venv(folder / "venv"), folder / "target"
    run(python, "-m", "pip", "install", "--quiet", "--target", target, package, cwd=folder)
    return Install(target, target / "bin/tuner", python, {"PYTHONPATH": str(target)})


def for_a_user(folder: Path, package: Path) -> Install:
    python = new_venv(folder / "venv", "--system-site-packages")  # pip refuses --user in others
    base = {"PYTHONUSERBASE": str(folder / "user")}
    run(python, "-m", "pip", "install", "--quiet", "--user", package, cwd=folder, **base)
    return Install(folder / "user", folder / "user/bin/tuner", python, base)


@pytest.mark.parametrize("install", [plain, into_a_target, for_a_user])
def test_an_installed_tuner_works_from_another_folder(
    install: Callable[[Path, Path], Install], wheel: Path, tmp_path: Path
) -> None:
    installed = install(tmp_path, wheel)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def call(*command: str | Path) -> str:
        return run(*command, cwd=elsewhere, **installed.environment)

    where = call(installed.python, "-c", "import tuner; print(tuner.__file__)")
    assert Path(where.strip()).is_relative_to(installed.folder)
    assert call(installed.script, "--version") == f"tuner {tuner.__version__}\n"
    assert "chat" in call(installed.script, "workload", "show", "chat")
    measured = json.loads(
        call(
            *(installed.script, "measure", "--emulate", "H100-SXM", "--model", "Qwen/Qwen3-8B"),
            *("--concurrency", "8", "--max-window-s", "20", "--format", "json"),
        )
    )
    assert measured["metrics"]["energy_per_output_token_j"] > 0
