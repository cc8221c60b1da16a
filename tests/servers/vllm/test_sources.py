"""What a vLLM takes beside its flags, read from the sources of a package that looks like one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tuner.servers.vllm.server import VllmServer
from tuner.servers.vllm.sources import read_sources

ENVS = """
import nothing_that_is_installed
environment_variables: dict[str, object] = {
    "VLLM_CPU_KVCACHE_SPACE": lambda: 1,
    "VLLM_HOST_IP": lambda: "",
}
"""
CONFIG = """
@config
class SpeculativeConfig:
    method: str | None = None
    num_speculative_tokens: int = None
    _private: int = 0

class CompilationConfig:
    pass_config: object = None

class PassConfig:
    fuse_norm_quant: bool = False
"""


@pytest.fixture
def server(tmp_path: Path) -> VllmServer:
    package = tmp_path / "vllm"
    (package / "config").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not to be imported')")
    (package / "envs.py").write_text(ENVS)
    (package / "config" / "some.py").write_text(CONFIG)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    script = tmp_path / "vllm-script"
    script.write_text(f"#!{python}\n")
    for path in (python, script):
        path.chmod(0o755)
    command = (str(script),)
    flags = frozenset({"speculative_config", "compilation_config", "attention_backend"})
    return VllmServer(command, "9.9", flags, sources=read_sources(command))


def test_a_variable_is_known_or_a_flag_by_now(server: VllmServer) -> None:
    assert server.unknown_variable("VLLM_CPU_KVCACHE_SPACE") is None
    assert server.unknown_variable("OMP_NUM_THREADS") is None
    said = server.unknown_variable("VLLM_ATTENTION_BACKEND")
    assert said is not None and "it is the flag 'attention_backend' now" in said
    said = server.unknown_variable("VLLM_HOST_IPS")
    assert said is not None and "did you mean 'VLLM_HOST_IP'?" in said


def test_fields_of_structured_flags(server: VllmServer) -> None:
    assert server.unknown_flag("speculative_config.method") is None
    assert server.unknown_flag("compilation_config.pass_config.fuse_norm_quant") is None
    said = server.unknown_flag("speculative_config.num_spec_tokens")
    assert said is not None and "did you mean 'num_speculative_tokens'?" in said
    assert server.unknown_flag("compilation_config.pass_config.x") is not None
    assert server.unknown_flag("specultive_config.method") is not None


def test_what_is_no_python_script_here_is_not_judged(tmp_path: Path) -> None:
    binary = tmp_path / "vllm"
    binary.write_bytes(b"\x7fELF")
    assert read_sources((str(binary),)) is None
    unknown = VllmServer((str(binary),), "9.9", frozenset({"speculative_config"}))
    assert unknown.unknown_variable("VLLM_X") is None
    assert unknown.unknown_flag("speculative_config.anything") is None


def test_words_of_fields(server: VllmServer) -> None:
    word = server.rules.word
    assert word("speculative_config.num_speculative_tokens", 4) == (
        "--speculative-config.num_speculative_tokens=4"
    )
    assert word("compilation_config.pass_config.fuse", True) == (
        "--compilation-config.pass_config.fuse=true"
    )
