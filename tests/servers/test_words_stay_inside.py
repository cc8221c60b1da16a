"""Nothing outside `tuner/servers` names a server's flags, routes or counters.

Read with `ast`: identifiers and texts, without docstrings and comments, which may give examples.
Free to name them: the emulator, which is an imitation of vLLM; the exports, which write vLLM's
files; search spaces, which are data; and readers of what other tools wrote, in their words.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import tuner

ROOT = Path(tuner.__file__).parent
FREE = ("servers", "emulator", "report/exports", "store/imports", "data")
FLAGS = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_model_len",
    "max_num_active_seqs",
    "scheduler_cls",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "enable_expert_parallel",
    "gpu_memory_utilization",
    "kv_cache_dtype",
    "enable_prefix_caching",
    "enable_chunked_prefill",
    "enforce_eager",
    "async_scheduling",
    "speculative_config",
    "long_prefill_token_threshold",
    "cpu_offload_gb",
    "served_model_name",
    "ignore_eos",
    "return_token_ids",
    "detokenize",
)
ROUTES = r"/v1/|(?<!\w)/(metrics|health|version|server_info|reset_prefix_cache)\b"
FORBIDDEN = re.compile(
    rf"\b({'|'.join(name.replace('_', '[_-]') for name in FLAGS)})\b|{ROUTES}|\bvllm:|\bVLLM_(?!_)"
)
FILES = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if not path.relative_to(ROOT).as_posix().startswith(FREE)
]


def words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield every identifier and text of a module with its line; docstrings are left out."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str() as text) if id(node) not in docstrings:
                yield node.lineno, text
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=str() as name):
                yield node.lineno, name
            case ast.arg(arg=name) | ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield node.lineno, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_of_a_server(path: Path) -> None:
    found = [
        f"line {line}: {text[:80]!r}"
        for line, text in words(ast.parse(path.read_text()))
        if FORBIDDEN.search(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        'x["max_num_seqs"]',
        "x.max_num_seqs",
        "f(max_num_seqs=1)",
        'f"set --max-num-seqs {x}"',
        'url + "/v1/completions"',
        'b = "vllm:num_requests_running"',
        "def f(tensor_parallel_size): ...",
    ],
)
def test_what_counts_as_a_word(code: str) -> None:
    assert any(FORBIDDEN.search(text) for _, text in words(ast.parse(code)))


def test_a_docstring_may_give_an_example() -> None:
    assert not list(words(ast.parse('"""Such as `max_num_seqs`."""')))
