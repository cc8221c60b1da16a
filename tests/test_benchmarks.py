"""The benchmarks follow what they use: each can be imported, which no other test does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPT = """
import importlib, pathlib, sys
sys.path[:0] = ["benchmarks", "tests", "."]
for path in sorted(pathlib.Path("benchmarks").glob("*.py")):
    importlib.import_module(path.stem)
    print(path.stem)
"""


def test_each_benchmark_can_be_imported() -> None:
    words = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.split()) == len(list((ROOT / "benchmarks").glob("*.py"))) > 30
