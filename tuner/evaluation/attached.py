"""Attached evaluation: measure a server that the user runs (`--base-url`) under varying load."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np

from tuner.configuration import Configuration, Value
from tuner.devices.device_state import pids_of
from tuner.devices.emulated.activity import ActivityDriven
from tuner.devices.emulated.meters import EmulatorServerMeter
from tuner.devices.energy_window import flag_in_words
from tuner.devices.meter import Meter, WindowContext
from tuner.errors import OperatorNeededError, PreflightError, UsageError
from tuner.evaluation.believed_energy import disbelief, idle_power, judged
from tuner.evaluation.evaluator import (
    IDLE_S,
    Evaluation,
    LoadRun,
    MeasurementPlan,
    Testbed,
)
from tuner.load.text_request import marked
from tuner.load.workload import FIRST_TOKEN_ID
from tuner.measurement.listener import NOBODY, LoadListener
from tuner.measurement.load_run import run_idle, run_load
from tuner.records import (
    Failure,
    FailureKind,
    Measurement,
    Request,
    Source,
    TextRequest,
    Timing,
)
from tuner.servers.openai.api import OpenAiApi
from tuner.servers.registry import running_server_api
from tuner.servers.server import Endpoint, HttpApi, ServerSample, ServerUnreachableError

_ANSWER_S = 30.0
EMULATOR_VERSION_SUFFIX = "+emulator"


@dataclass(frozen=True, slots=True)
class _Server:
    """The running server and what measures it."""

    name: str
    version: str
    latency_source: Source
    meter: Meter


class AttachedEvaluator:
    """Measures a running server without starting, changing or stopping it.

    `meter` is told the names that the served model has, the server's own first.
    """

    needs_guardian = False

    def __init__(
        self,
        base_url: str,
        plan: MeasurementPlan,
        meter: Callable[[Sequence[str]], Meter],
        listener: LoadListener = NOBODY,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._api: HttpApi = OpenAiApi()  # until it is known whose it is
        self._plan = plan
        self._make_meter = meter
        self._listener = listener
        self._server: _Server | None = None

    async def prepare(self) -> Testbed:
        """Ask the server for its model and version; return the testbed."""
        server = await self._known()
        return Testbed(
            kind="attached",
            server_version=server.version,
            gpu=server.meter.gpu,
            driver=server.meter.driver,
            energy_source=server.meter.source,
            latency_source=server.latency_source,
        )

    async def defaults(self) -> Mapping[str, Value]:
        """Return the study's load as the defaults of the load knobs."""
        return self._plan.load_defaults

    async def _models(self) -> tuple[str, ...]:
        try:
            async with self._session() as session:
                return await self._api.models(session, self._base_url)
        except ServerUnreachableError as error:
            raise PreflightError(
                f"no OpenAI-compatible server answers at {self._base_url} ({error}); start it, or "
                "correct --base-url (without /v1)"
            ) from error

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_S))

    async def _known(self) -> _Server:
        """Return the server's answers to the first questions about itself."""
        if self._server is None:
            name = await self._ask_name()
            async with self._session() as session:
                self._api = await running_server_api(session, self._base_url)
                sources = await self._api.model_sources(session, self._base_url, name)
            version = await self._ask_version()
            is_emulated = version.endswith(EMULATOR_VERSION_SUFFIX)
            meter = await self._metered(is_emulated, (name, *sources), version)
            for sentence in self._api.lacks:
                self._listener.note(sentence)
            self._server = _Server(
                name=name,
                version=version,
                latency_source=Source.EMULATED if is_emulated else Source.MEASURED,
                meter=meter,
            )
        return self._server

    async def _ask_name(self) -> str:
        names = await self._models()
        model = self._plan.model
        for name in (model, _as_path(model)):
            if name in names:
                return name
        raise PreflightError(
            f"the server at {self._base_url} serves {', '.join(names) or 'no model'}, not {model}; "
            "give its own name with --model"
        )

    async def _metered(self, is_emulated: bool, names: Sequence[str], version: str) -> Meter:
        """Return what measures the energy. Raises `PreflightError` if nothing can."""
        if is_emulated:
            return EmulatorServerMeter("emulated")
        try:
            meter = self._make_meter(names)
        except UsageError:  # of a server without counters the model's shape would not help
            await self._require_counters(version)
            raise
        if isinstance(meter, ActivityDriven):
            await self._require_counters(version)
        return meter

    async def _require_counters(self, version: str) -> None:
        """Raise `PreflightError` if the server has no counters that energy could follow."""
        sample = ServerSample()
        async with self._session() as session:
            with suppress(ServerUnreachableError):
                sample = await self._api.sample(session, self._base_url)
        if sample.running is None or sample.generation_tokens is None:
            raise PreflightError(
                f"no energy can be known of the server at {self._base_url} ({version}): its GPUs "
                "are not this machine's or NVML is not here, and it reports no counters by which "
                "energy could be emulated; run the tuner on the machine with the GPUs, or let it "
                "reach the server's page of metrics"
            )

    async def _ask_version(self) -> str:
        async with self._session() as session:
            return await self._api.version(session, self._base_url) or "unknown"

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        """Run the load on the server."""
        return await self._evaluate(self._plan.run_of(configuration))

    async def _evaluate(self, run: LoadRun) -> Evaluation:
        began_s = time.monotonic()
        server = await self._known()
        vocab_size = self._plan.workload.spec.vocab_size
        context = await _as_found(server.meter)
        raw, warnings = await run_load(
            Endpoint(self._api, self._base_url, server.name),
            _salted(run.requests(), vocab_size, secrets.randbits(30)),
            run.load,
            server.meter,
            run.window,
            latency_source=server.latency_source,
            listener=self._listener,
        )
        result = run.reduce(raw)
        if isinstance(result, Failure) and not await self._answers():
            raise OperatorNeededError(
                f"the server at {self._base_url} no longer answers ({result.reason}); start it "
                "again, then `tuner resume`"
            )
        verdict = await judged(server.meter, raw, context)
        if isinstance(result, Measurement):
            result = disbelief(verdict) or result
        warnings = (*warnings, *self._api.lacks, *map(flag_in_words, verdict.flags))
        return Evaluation(result, raw, warnings, Timing(time.monotonic() - began_s))

    def is_warm_for(self, configuration: Configuration) -> bool:
        """Always true: the server runs already."""
        return True

    async def confirm(self, configuration: Configuration, repeat: int, traffic: int) -> Evaluation:
        """Measure once more: the tuner does not restart a server that is not its own."""
        return await self._evaluate(self._plan.run_of(configuration, traffic))

    async def probe(self, configuration: Configuration, repeat: int, run: LoadRun) -> Evaluation:
        """Run another load on the server."""
        return await self._evaluate(run)

    async def idle(
        self, configuration: Configuration, repeat: int, window_s: float = IDLE_S
    ) -> Evaluation:
        """Measure the power while the tuner sends nothing; others may use the server."""
        began_s = time.monotonic()
        server = await self._known()
        target = Endpoint(self._api, self._base_url, server.name)
        context = await _as_found(server.meter)
        raw = await run_idle(target, server.meter, window_s, latency_source=server.latency_source)
        result = idle_power(raw, await judged(server.meter, raw, context))
        return Evaluation(result, raw, (), Timing(time.monotonic() - began_s))

    async def switching(self, configuration: Configuration, repeat: int) -> Evaluation:
        """Refuse: the tuner does not restart a server that is not its own."""
        reason = "the server is not the tuner's, which does not restart it"
        return Evaluation(Failure(FailureKind.CONFIGURATION, reason), None, (), Timing(0.0))

    async def _answers(self) -> bool:
        try:
            await self._models()
        except PreflightError:
            return False
        return True

    async def close(self) -> None:
        """Leave the server as it is."""
        if self._server is not None:
            self._server.meter.close()


async def _as_found(meter: Meter) -> WindowContext:
    """Return what a window is judged by: who uses the GPUs by now counts as the server's own."""
    states = await asyncio.to_thread(meter.states)
    return WindowContext(states, pids_of(states), power_limit_w=None)


def _as_path(model: str) -> str:
    """Return a relative path as a server names it that was started with a whole one."""
    return str(Path(model).expanduser().absolute())


def _salted(requests: Iterator[Request], vocab_size: int, salt: int) -> Iterator[Request]:
    """Yield the requests with other prompts: ids moved by `salt`, texts with it in front.

    The server's prefix cache holds the prompts of earlier trials, so the same prompts would be
    cached. Lengths (a text's but for the salt's), arrivals and shared prefixes stay the same.
    """
    span = vocab_size - FIRST_TOKEN_ID
    for request in requests:
        if isinstance(request, TextRequest):
            yield dataclasses.replace(request, prompt=marked(request.prompt, salt))
        else:
            moved = (request.prompt_token_ids - FIRST_TOKEN_ID + salt) % span + FIRST_TOKEN_ID
            yield dataclasses.replace(request, prompt_token_ids=moved.astype(np.int32))
