"""A live evaluator on the emulator's server, and what it left in its folder."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tuner.configuration import Configuration, Value
from tuner.devices.emulated.meters import EmulatorServerMeter
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.evaluation.launched.launch_sharing import LiveKnobs
from tuner.evaluation.launched.launched import ServedEvaluator
from tuner.evaluation.launched.warm_server import LaunchSettings, ServerSpec
from tuner.evaluation.traffic import Traffic
from tuner.load.workload import Workload
from tuner.measurement.listener import NOBODY, NoteListener
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Load, Source
from tuner.servers.processes import tagged_processes
from tuner.servers.registry import emulated_server
from tuner.slo import Slo

RUN_TAG = f"test-live-evaluator-{os.getpid()}"


@asynccontextmanager
async def evaluator(
    folder: Path,
    workload: Workload,
    *server_words: str,
    flags: Mapping[str, Value] | None = None,
    largest: Mapping[str, int] | None = None,
    note: Callable[[str], None] = NOBODY.note,
    window_s: float = 1.5,
) -> AsyncIterator[ServedEvaluator]:
    """A server whose command line gets `server_words` behind what the tuner gives it."""
    script = folder / "vllm"
    start = f'exec {sys.executable} -m tuner.emulator "$@" {" ".join(server_words)}'
    script.write_text(f"#!/bin/sh\necho launch >> {folder}/launches\n{start}\n")
    script.chmod(0o755)
    variables = {"TUNER_EMULATED_GPU": "H100-SXM"}
    spec = ServerSpec(
        emulated_server((str(script),), "emulator", variables),
        source=Source.EMULATED,
        meter=lambda _: EmulatorServerMeter("H100-SXM"),
        widest=Configuration(),
        defaults={},
        live=LiveKnobs(largest or {}),
    )
    task = MeasurementPlan(
        model="Qwen/Qwen3-8B",
        traffic=Traffic(workload),
        load=Load(concurrency=8),
        slos=(Slo("p99_tpot_ms", 100.0),),
        window=WindowPlan(window_s=window_s, warmup_limit_s=5.0),
        fixed=Configuration(flags=flags or {}),
    )
    settings = LaunchSettings(RUN_TAG, folder / "logs", 30.0, None, NoteListener(note))
    made = ServedEvaluator(spec, task, settings, None)
    try:
        yield made
    finally:
        await made.close()
        assert tagged_processes(RUN_TAG) == ()


def launches(folder: Path) -> int:
    """How often the server was started."""
    path = folder / "launches"
    return len(path.read_text().splitlines()) if path.exists() else 0
