"""A real vLLM that answers texts, for the tests and benchmarks that need one."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from studies import TINY_LLAMA

from tuner.configuration import Configuration
from tuner.serving.launch import LaunchPlan, RunningServer, launched
from tuner.serving.processes import stop_tagged
from tuner.serving.vllm import find_vllm


class Endless:
    """The load ends when its requests are used up."""

    window_start_s = window_end_s = None

    def started(self, now_s: float) -> None: ...

    def sent(self, now_s: float) -> None: ...

    def finished(self, now_s: float) -> None: ...


@asynccontextmanager
async def tiny_vllm(folder: Path) -> AsyncIterator[RunningServer]:
    """Run a tiny Llama with a tokenizer, of bytes, on the vLLM that TUNER_VLLM names."""
    model = folder / "tiny"
    model.mkdir()
    (model / "config.json").write_text(TINY_LLAMA)
    command = find_vllm(os.environ["TUNER_VLLM"])
    python = Path(command[0]).with_name("python")
    script = Path(__file__).with_name("load") / "tiny_tokenizer.py"
    await asyncio.to_thread(subprocess.run, [python, script, model], check=True)
    tag = f"tiny-{os.getpid()}-{folder.name}"
    plan = LaunchPlan(
        command=command,
        model=str(model),
        configuration=Configuration(flags={}, environment={"VLLM_CPU_KVCACHE_SPACE": 1}),
        run_tag=tag,
        log_path=folder / "vllm.log",
        startup_deadline_s=600.0,
        fixed_flags={
            "load_format": "dummy",
            "enforce_eager": True,
            "dtype": "float32",
            "enable_prefix_caching": False,
        },
        environment={"HF_HUB_OFFLINE": True},
    )
    try:
        async with launched(plan) as running:
            yield running
    finally:
        stop_tagged(tag, grace_s=1.0)
