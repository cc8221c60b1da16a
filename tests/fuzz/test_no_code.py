"""Text from a file is data, never evaluated; and servers answer this machine alone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tuner.configuration import Configuration
from tuner.emulator.http.arguments import parse
from tuner.servers.launch import HOST
from tuner.servers.vllm.server import VllmServer

SIGNS = re.compile(r"\b(eval|exec|compile|__import__|yaml|shell|system|pickle|marshal|shelve)\b")
PACKAGE = Path(__file__).parents[2] / "tuner"
EVALUATES = {"eval", "exec", "compile", "__import__"}
LOADS_CODE = {"pickle", "marshal", "shelve"}
UNSAFE_YAML = {"unsafe_load", "full_load", "unsafe_load_all", "full_load_all"}
UNSAFE_LOADERS = re.compile(r"\b(C?Loader|C?FullLoader|C?UnsafeLoader)\b")  # the others are Safe


def offences(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [module or ""] if module else [alias.name for alias in node.names]
            found += [name for name in names if name.partition(".")[0] in LOADS_CODE]
        if isinstance(node, ast.Attribute) and UNSAFE_LOADERS.fullmatch(node.attr):
            found.append(node.attr)
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in EVALUATES:
            found.append(called.id)
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            name = f"{called.value.id}.{called.attr}"
            has_loader = len(node.args) + len(node.keywords) > 1
            is_bare = called.attr in ("load", "load_all") and not has_loader
            if called.value.id == "yaml" and (is_bare or called.attr in UNSAFE_YAML):
                found.append(name)
            if name == "os.system" or any(
                k.arg == "shell" and not (isinstance(k.value, ast.Constant) and not k.value.value)
                for k in node.keywords
            ):
                found.append(name)
    return found


@pytest.mark.parametrize(
    "code",
    [
        "eval(x)",
        "yaml.load(f)",
        "yaml.load(f, yaml.Loader)",
        "import pickle",
        "from pickle import loads",
        "os.system(x)",
        "subprocess.run(x, shell=True)",
    ],
)
def test_what_counts_as_evaluating(code: str) -> None:
    assert offences(ast.parse(code))


def test_nothing_is_evaluated() -> None:
    texts = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    risky = [path for path, text in texts.items() if SIGNS.search(text)]  # parsing takes its time
    assert risky, "not even yaml.safe_load"
    found = {str(path): bad for path in risky if (bad := offences(ast.parse(texts[path])))}
    assert found == {}


def test_a_server_is_launched_on_the_loopback_alone() -> None:
    argv = VllmServer(("vllm",), "0").command_line(
        "m", Configuration(), host=HOST, port=8000, served_name="n"
    )
    assert "--host=127.0.0.1" in argv


def test_the_emulator_listens_on_the_loopback_unless_asked() -> None:
    assert parse(["serve", "Qwen/Qwen3-8B"], "0").host == "127.0.0.1"
