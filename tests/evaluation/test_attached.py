"""A server that somebody else runs: which model it serves, and what of it can be known."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.devices.emulated.meters import ActivityMeter
from tuner.devices.meter import Meter
from tuner.errors import PreflightError, UsageError
from tuner.evaluation.attached import AttachedEvaluator, _salted
from tuner.evaluation.evaluator import MeasurementPlan
from tuner.evaluation.traffic import Traffic
from tuner.load.workload import load_workload
from tuner.measurement.listener import NoteListener
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Load, Message, Request, Source, TextRequest
from tuner.spec.study import spec_from

PLAN = MeasurementPlan(
    model="our-model",
    traffic=Traffic(load_workload("smoke")),
    load=Load(concurrency=2),
    slos=(),
    window=WindowPlan(window_s=1.0),
    fixed=Configuration(),
)
METRICS = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n" \
    "vllm:prompt_tokens_total 5\nvllm:generation_tokens_total 5\n"  # fmt: skip


@asynccontextmanager
async def serving(
    name: str, owner: str = "vllm", metrics: str | None = METRICS
) -> AsyncIterator[str]:
    async def models(_: web.Request) -> web.Response:
        card = {"id": name, "owned_by": owner, "root": "Qwen/Qwen3-8B"}
        return web.json_response({"data": [card]})

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=metrics or "")

    app = web.Application()
    app.router.add_get("/v1/models", models)
    if metrics is not None:
        app.router.add_get("/metrics", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def emulated(names: Sequence[str]) -> Meter:
    """As on a machine without NVML."""
    for name in names:
        try:
            return ActivityMeter(load_model(name), load_gpu("H100-SXM"), 100.0)
        except UsageError:
            continue
    raise UsageError("no shape")


def measured(_names: Sequence[str]) -> Any:
    """As on a machine with NVML, as far as it is asked here."""
    return SimpleNamespace(gpu="H100", driver="1", source=Source.MEASURED, close=lambda: None)


async def test_a_name_that_stands_for_a_known_model_is_enough_to_emulate_energy() -> None:
    async with serving("our-model") as url:
        evaluator = AttachedEvaluator(url, replace(PLAN, model="our-model"), emulated)
        assert (await evaluator.prepare()).server_version == "unknown"
        await evaluator.close()


async def test_a_relative_path_is_the_name_by_which_it_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    options = {"model": "models/mine", "trials": 1}
    assert spec_from(None, options).model == str(tmp_path / "models/mine")
    served = spec_from(None, {**options, "base_url": "http://127.0.0.1:8000"})
    assert served.model == "models/mine"
    for name in ("models/mine", str(tmp_path / "models/mine")):
        async with serving(name) as url:
            evaluator = AttachedEvaluator(url, replace(PLAN, model="models/mine"), measured)
            await evaluator.prepare()
            await evaluator.close()


@pytest.mark.parametrize(("owner", "metrics"), [("vllm", None), ("vllm", ""), ("sglang", METRICS)])
async def test_without_counters_and_nvml_no_energy_can_be_known(
    owner: str, metrics: str | None
) -> None:
    async with serving("our-model", owner, metrics) as url:
        evaluator = AttachedEvaluator(url, replace(PLAN, model="our-model"), emulated)
        with pytest.raises(PreflightError, match="no counters") as caught:
            await evaluator.prepare()
        assert url in str(caught.value)


async def test_what_a_dialect_lacks_is_said() -> None:
    told: list[str] = []
    async with serving("our-model", "sglang", None) as url:
        plan = replace(PLAN, model="our-model")
        evaluator = AttachedEvaluator(url, plan, measured, NoteListener(told.append))
        assert (await evaluator.prepare()).server_version == "SGLang"
        await evaluator.close()
    assert len(told) == 1
    assert told[0].startswith("SGLang returns no token ids")


def test_no_trial_finds_the_prompts_of_another_in_the_prefix_cache() -> None:
    ids, system = np.array([11, 12, 13], np.int32), Message("system", "You help.")
    requests = [
        Request(0, 0.0, ids, 5),
        TextRequest(1, 0.0, ids, 5, "What is a joule?"),
        TextRequest(2, 0.0, ids, 5, (system, Message("user", "Hello"))),
        TextRequest(3, 0.0, ids, 5, (system, Message("user", "What is a watt?"))),
    ]

    def sent(salt: int) -> list[Any]:
        salted = _salted(iter(requests), 32_000, salt)
        return [
            r.prompt if isinstance(r, TextRequest) else tuple(r.prompt_token_ids) for r in salted
        ]

    one, other = sent(7), sent(8)
    assert all(a != b for a, b in zip(one, other, strict=True))
    for trial in (one, other):
        assert trial[2][0] == trial[3][0] != system  # what requests of a trial share stays shared
        assert trial[2][1] == Message("user", "Hello")
