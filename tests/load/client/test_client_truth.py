"""The law of the client's times, on the emulator's server; how exact they are, a benchmark says."""

from __future__ import annotations

import asyncio

import numpy as np
from aiohttp import web
from helpers.driving import drive_records
from helpers.endpoints import served

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.emulator.engine.step_log import WriteLog
from tuner.emulator.http.served_engine import ServedEngine
from tuner.emulator.http.served_replicas import ServedReplicas
from tuner.emulator.http.server import Server
from tuner.emulator.virtual import engine_for
from tuner.records import Load, Request, RequestState


class Endless:
    window_start_s = window_end_s = None

    def started(self, now_s: float) -> None: ...

    def sent(self, now_s: float) -> None: ...

    def finished(self, now_s: float) -> None: ...


async def test_each_token_arrives_after_it_was_written_and_before_the_next() -> None:
    model = load_model("meta-llama/Llama-3.1-8B-Instruct")
    engine = engine_for(model, load_gpu("H100-SXM"), Configuration(), seed=0, keep_log=False)
    live, wrote = ServedEngine(engine), WriteLog()
    runner = web.AppRunner(
        Server(ServedReplicas([live]), "truth", wrote).app(), shutdown_timeout=0.1
    )
    await runner.setup()
    await live.start()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    requests = [Request(i, 0.0, np.full(8 + i, 7, dtype=np.int32), 30) for i in range(12)]
    async with asyncio.timeout(60.0):
        records = await drive_records(
            served(url, "truth"), iter(requests), Load(concurrency=6), Endless()
        )
    await runner.cleanup()
    await live.stop()
    assert [(r.state, r.error) for r in records] == [(RequestState.DONE, None)] * 12
    answers = wrote.by_prompt_tokens()
    assert sorted(answers) == list(range(8, 20))
    tolerance_s = 1e-3  # of the comparison of the kernel's clock with ours
    for record in records:
        rows = answers[record.prompt_tokens]
        assert len(rows) >= 3
        assert np.all(rows[:, 0] <= rows[:, 1])
        seen_s = record.token_times_s
        assert seen_s[0] >= rows[0, 0] - tolerance_s
        assert seen_s[-1] <= record.ended_s
        if len(rows) == seen_s.size + 2:  # a token each, then the usage and the end
            assert np.all(seen_s >= rows[:-2, 0] - tolerance_s)
            assert np.median(seen_s - rows[:-2, 0]) < 0.05
        assert np.all(np.diff(seen_s) >= -tolerance_s)
