"""Evaluation on a server that somebody else runs (`--base-url`): only the load changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import aiohttp

from tuner.configuration import Configuration, Value
from tuner.errors import OperatorNeededError, PreflightError
from tuner.gpu.meter import Meter
from tuner.measure.live import run_load
from tuner.records import Failure, Source
from tuner.study.evaluator import Bench, Evaluation, Task, load_defaults, load_of

_ANSWER_S = 30.0


class AttachedEvaluator:
    """Measures a running server without starting, changing or stopping it."""

    def __init__(self, base_url: str, task: Task, meter: Callable[[], Meter]) -> None:
        self._base_url = base_url.rstrip("/")
        self._task = task
        self._make_meter = meter
        self._server: tuple[str, Meter] | None = None  # its model's name, and what measures it

    async def prepare(self) -> Bench:
        """Ask the server who it is."""
        name, meter = await self._ask()
        self._server = name, meter
        return Bench(
            kind="attached",
            server_version=await self._ask_version(),
            gpu=meter.gpu,
            driver=meter.driver,
            energy_source=meter.source,
            latency_source=Source.MEASURED,
        )

    async def defaults(self) -> Mapping[str, Value]:
        """Load knobs have the default of the study's load."""
        return load_defaults(self._task.load)

    async def _get(self, path: str) -> Mapping[str, object]:
        timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(self._base_url + path) as reply,
            ):
                reply.raise_for_status()
                data = await reply.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise PreflightError(
                f"no OpenAI-compatible server answers at {self._base_url}{path} "
                f"({error or 'time-out'}); "
                "start it, or correct --base-url (without /v1)"
            ) from error
        return data if isinstance(data, dict) else {}

    async def _ask(self) -> tuple[str, Meter]:
        name = await self._ask_name()
        return name, self._make_meter()

    async def _ask_name(self) -> str:
        models = (await self._get("/v1/models")).get("data")
        names = [str(m["id"]) for m in models] if isinstance(models, list) else []
        if not names:
            raise PreflightError(f"the server at {self._base_url} serves no model")
        return self._task.model if self._task.model in names else names[0]

    async def _ask_version(self) -> str:
        return str((await self._get("/version")).get("version", "unknown"))

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        """Drive the load at the running server."""
        began_s = time.monotonic()
        served_name, meter = self._server or await self._ask()
        raw, warnings = await run_load(
            self._base_url,
            served_name,
            self._task.workload.requests(),
            load_of(configuration, self._task.load),
            meter,
            self._task.window,
        )
        result = self._task.reduce(raw)
        if isinstance(result, Failure) and not await self._answers():
            raise OperatorNeededError(
                f"the server at {self._base_url} no longer answers ({result.reason}); start it "
                "again, then `tuner resume`"
            )
        return Evaluation(result, raw, warnings, time.monotonic() - began_s)

    async def _answers(self) -> bool:
        try:
            await self._get("/v1/models")
        except PreflightError:
            return False
        return True

    async def close(self) -> None:
        """Leave the server as it is."""
