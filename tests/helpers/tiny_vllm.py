"""A real vLLM with a tiny model, for the tests and benchmarks that need one."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from helpers.studies import TINY_LLAMA
from tuner.configuration import Configuration, Value
from tuner.servers.launch import LaunchPlan, RunningServer, launched
from tuner.servers.processes import stop_tagged
from tuner.servers.vllm.command import find_vllm
from tuner.servers.vllm.server import VllmServer

SMALL: Mapping[str, Value] = {"load_format": "dummy", "enforce_eager": True, "dtype": "float32"}


def needs_vllm(timeout_s: float) -> list[pytest.MarkDecorator]:
    """Return the marks of tests on a real vLLM."""
    return [
        pytest.mark.vllm,
        pytest.mark.skipif("TUNER_VLLM" not in os.environ, reason="TUNER_VLLM names no vllm"),
        pytest.mark.timeout(timeout_s),
    ]


def tiny_plan(
    folder: Path,
    run_tag: str,
    flags: Mapping[str, Value],
    *,
    cache_gib: int = 1,
    startup_deadline_s: float = 600.0,
) -> LaunchPlan:
    """Make a tiny Llama in `folder`, and the plan of a server of it that TUNER_VLLM names."""
    model = folder / "tiny"
    model.mkdir()
    (model / "config.json").write_text(TINY_LLAMA)
    return LaunchPlan(
        server=VllmServer(
            find_vllm(os.environ["TUNER_VLLM"]),
            version="not asked",
            variables={"HF_HUB_OFFLINE": True, "VLLM_SERVER_DEV_MODE": True},
        ),
        model=str(model),
        configuration=Configuration(
            flags={**SMALL, **flags}, environment={"VLLM_CPU_KVCACHE_SPACE": cache_gib}
        ),
        run_tag=run_tag,
        log_path=folder / "vllm.log",
        startup_deadline_s=startup_deadline_s,
    )


class Endless:
    """The load ends when its requests are used up."""

    window_start_s = window_end_s = None

    def started(self, now_s: float) -> None: ...

    def sent(self, now_s: float) -> None: ...

    def finished(self, now_s: float) -> None: ...


@asynccontextmanager
async def tiny_vllm(folder: Path) -> AsyncIterator[RunningServer]:
    """Run a tiny Llama with a tokenizer, of bytes, that answers texts."""
    tag = f"tiny-{os.getpid()}-{folder.name}"
    plan = tiny_plan(folder, tag, {"enable_prefix_caching": False})
    python = Path(find_vllm(os.environ["TUNER_VLLM"])[0]).with_name("python")
    script = Path(__file__).with_name("tiny_tokenizer.py")
    await asyncio.to_thread(subprocess.run, [python, script, plan.model], check=True)
    try:
        async with launched(plan) as running:
            yield running
    finally:
        stop_tagged(tag, grace_s=1.0)
