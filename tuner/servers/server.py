"""The `Server` protocol: everything that the tuner needs from an inference server.

To add another server (SGLang, TGI, vLLM-Omni), write one folder beside `servers/vllm`, and name
it in `servers/registry.py`. Nothing outside `servers/` names a flag, a route, a counter or a line
of a log. Every server must pass `tests/servers/test_contract.py`, which contains a toy server of
sixty lines to start from. A server has four parts, each a protocol below:

* `FlagRules`: rules of its flags, known without starting it. How many GPUs a configuration takes,
  which configurations the server refuses, which do not fit into memory, and which flags can change
  while it runs (`AdjustableLimits`).
* `HttpApi`: the API of a running server. Requests and their answers, counters, the settings that it
  chose, its prefix cache. `--base-url` needs only this part.
* `LogReader`: why a server did not start, or died, and whose fault that is.
* `Server` itself: an installed server, its version, and its command line.

If a server lacks a feature, the method says so (None, False, or an empty reply), and the tuner does
without: without counters it measures a load from the client's side only, and without adjustable
limits it launches each configuration.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from tuner.configuration import Configuration, Value
from tuner.records import Failure, GenerationRequest, Prompt, Request

if TYPE_CHECKING:  # reports read the rules of flags, and should not wait for an HTTP client
    import aiohttp

    from tuner.catalog.model import ModelShape
    from tuner.servers.forking.recipe import ForkRecipe
    from tuner.servers.openai.stream import CompletionStream

Flags: TypeAlias = Mapping[str, Value]
Limits: TypeAlias = Mapping[str, int]  # by flag; one that is absent is left as it was launched
TokenIds: TypeAlias = tuple[int, ...]


class ServerUnreachableError(Exception):
    """The server did not answer, or not as it should; the text says what was asked."""


class NotAnsweredError(Exception):
    """A prompt got no answer that can be compared; the text says why."""


class NotReusableError(Exception):
    """The server cannot be trusted with another evaluation; the text says why."""


@dataclass(frozen=True, slots=True)
class HttpCall:
    """A request to be posted: the route, from the first slash, and the body, JSON as a rule.

    Without `keeps_connection` the server ends the connection after its answer.
    """

    route: str
    body: bytes
    keeps_connection: bool = True
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class ServerSample:
    """Counters of one scrape, summed over engines; None for what the server does not report.

    Running and waiting are requests now; tokens, preemptions and drafts count from the start.
    `accepted_at` are the accepted tokens by their position in a draft.
    """

    running: float | None = None
    waiting: float | None = None
    prompt_tokens: float | None = None
    generation_tokens: float | None = None
    preemptions: float | None = None
    drafts: float | None = None
    drafted_tokens: float | None = None
    accepted_tokens: float | None = None
    accepted_at: tuple[float, ...] = ()
    emulated_energy_j: float | None = None
    emulated_power_w: float | None = None
    emulated_sm_clock_mhz: float | None = None


class LimitsChannel(Protocol):
    """Changes the limits of one server while it runs, from before its launch to its end."""

    @property
    def configuration(self) -> Configuration:
        """What to launch instead of the configuration that the channel was opened for."""

    def problem(self) -> str | None:
        """Say why a server that is ready cannot change its limits; None if it can."""

    def blamed_for(self, failure: Failure) -> str | None:
        """Say why a launch failed if it failed because of this channel; else None."""

    async def change(self, limits: Limits, step: Callable[[], Awaitable[None]]) -> None:
        """Set limits and see them in force; those of the launch stay where they are lower.

        `step` has the engine make a few tokens: an idle engine may not look. Raises
        `NotReusableError`.
        """

    def close(self) -> None:
        """Let go of it; the server has ended."""


class AdjustableLimits(Protocol):
    """The flags of a server that can change while it runs."""

    @property
    def flags(self) -> tuple[str, ...]:
        """The names of those flags."""

    def governs(self, flags: Flags) -> bool:
        """Say whether limits set later mean the same as these flags at a launch."""

    def launch_flags(self, flags: Flags, largest: Limits) -> Flags:
        """Return the flags of a launch whose limits can be any up to `largest`."""

    def limits(self, flags: Flags) -> Limits:
        """Return the limits that these flags ask for."""

    def most_running(self, limits: Limits) -> int | None:
        """Return how many requests may run at once under limits; None if that is not limited."""

    def open(self, folder: Path, name: str, configuration: Configuration) -> LimitsChannel:
        """Make the channel of one server; `folder` is that of the run. Raises `OSError`."""


class FlagRules(Protocol):
    """What is known of a server's flags before one is started."""

    @property
    def parallel_sizes(self) -> tuple[str, ...]:
        """The flags that each multiply the GPUs of a server."""

    @property
    def context_flag(self) -> str:
        """The flag that bounds the tokens of a request, prompt and answer together."""

    @property
    def memory_flags(self) -> tuple[str, ...]:
        """The flags to think of where a model does not fit into memory."""

    @property
    def limits(self) -> AdjustableLimits | None:
        """The flags that can change while a server runs; None if there are none."""

    @property
    def sleep_flags(self) -> Flags:
        """The flags that a server needs to be able to sleep; empty if none can."""

    def word(self, name: str, value: Value) -> str:
        """Return one flag as the command line wants it."""

    def value(self, name: str, value: Value) -> Value:
        """Return a flag's value as the server reads it, such as 16000 of the text 16k.

        Raises `UsageError` for a text that it does not take.
        """

    def gpus_used(self, configuration: Configuration) -> int:
        """Return how many GPUs a server with these flags takes."""

    def refusal(self, flags: Flags) -> str | None:
        """Say why the server would refuse to start, as far as that is known beforehand."""

    def changes_outputs(self, name: str) -> bool:
        """Say whether a flag, or a field of one (`flag.field`), may change the model's answers."""

    def needs_text(self, name: str) -> bool:
        """Say whether what a flag, or a field of one, does depends on what is said: drafts."""

    def suits(self, flags: Flags, model: ModelShape) -> bool:
        """Say whether the model can be spread over GPUs as the flags say; False only if sure."""

    def fits(self, flags: Flags, model: ModelShape, memory_gib: float) -> bool | None:
        """Say whether the model and one request of full length fit into GPUs of `memory_gib` each.

        False only where that is sure; None where the flags do not tell.
        """


class HttpApi(Protocol):
    """How a running server is spoken to; a `base_url` is like `http://127.0.0.1:8000`."""

    @property
    def lacks(self) -> tuple[str, ...]:
        """What its numbers carry because the server does not give more, a sentence each."""

    def completion(self, request: Request, served_name: str) -> HttpCall:
        """Return the call that streams exactly as many tokens as the request asks for."""

    def stream(self, request: Request) -> CompletionStream:
        """Return what reads the streamed answer to that call.

        A server whose events look different returns a subclass with a `read_event` of its own.
        """

    async def greedy_answer(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        served_name: str,
        prompt: Sequence[int],
        max_tokens: int,
    ) -> TokenIds:
        """Return the greedy answer to a prompt of token ids.

        Raises `NotAnsweredError`, and `TimeoutError` at the deadline of the session.
        """

    async def greedy_text(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        served_name: str,
        prompt: Prompt,
        max_tokens: int,
        chat_fields: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the greedy answer to a text or to messages, up to where the model ends it.

        `chat_fields` are sent beside messages; they say how to think.

        Raises `NotAnsweredError`, and `TimeoutError` at the deadline of the session.
        """

    async def picture(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        served_name: str,
        request: GenerationRequest,
    ) -> bytes:
        """Return the image (PNG) or video (MP4) of a request; raises as `greedy_text`."""

    async def generates(
        self, session: aiohttp.ClientSession, base_url: str, served_name: str
    ) -> bool:
        """Have the engine make a few tokens; False if it did not. Raises `aiohttp`'s errors."""

    async def is_ready(self, session: aiohttp.ClientSession, base_url: str) -> bool:
        """Say whether the server is up and has loaded its model."""

    async def models(self, session: aiohttp.ClientSession, base_url: str) -> tuple[str, ...]:
        """Return the names of the models that are served. Raises `ServerUnreachableError`."""

    async def model_sources(
        self, session: aiohttp.ClientSession, base_url: str, served_name: str
    ) -> tuple[str, ...]:
        """Return names or folders of the model that is served under a name, as far as it says.

        Raises `ServerUnreachableError`.
        """

    async def version(self, session: aiohttp.ClientSession, base_url: str) -> str | None:
        """Return the version that the server reports; None if it does not."""

    async def sample(self, session: aiohttp.ClientSession, base_url: str) -> ServerSample:
        """Read the counters. Raises `ServerUnreachableError`."""

    async def settings(self, session: aiohttp.ClientSession, base_url: str) -> Flags | None:
        """Return what the server made of its flags and its defaults; None if it does not say.

        Raises `ServerUnreachableError`.
        """

    async def sleep(self, session: aiohttp.ClientSession, base_url: str, level: int) -> bool:
        """Free the GPUs' memory: 1 keeps the weights in the host's, 2 drops them; False if not.

        Raises `aiohttp`'s errors.
        """

    async def wake(self, session: aiohttp.ClientSession, base_url: str, level: int) -> bool:
        """Wake a server that sleeps at a level; False if that failed. Raises `aiohttp`'s errors."""

    async def reset_prefix_cache(self, session: aiohttp.ClientSession, base_url: str) -> bool:
        """Empty the prefix cache; False if that failed or cannot be done.

        Raises `aiohttp`'s errors.
        """


class LogReader(Protocol):
    """What a server's log, its output from the start, says of its end."""

    def diagnose_launch(self, log_text: str, exit_code: int | None, timed_out: bool) -> Failure:
        """Say why a server never got ready, in one sentence that quotes the root of its log."""

    def diagnose_death(self, log_text: str, exit_code: int | None) -> Failure:
        """Say why a server that had been ready did not survive its load."""

    def broken_gpu(self, log_text: str) -> str | None:
        """Return the line that says that a GPU needs a person, None if none does."""

    def has_dead_engine(self, log_text: str) -> bool:
        """Say whether the engine behind a server that may still answer has died."""


class Server(Protocol):
    """An installed server, from which the tuner launches one for each configuration."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def version(self) -> str:
        """What it calls itself; a study is resumed with the same one only."""

    @property
    def known_flags(self) -> frozenset[str] | None:
        """The flags that this version takes, in their Python spelling; None if not asked."""

    def unknown_flag(self, name: str) -> str | None:
        """Say that this version does not take a flag, or a field of one (`flag.field`).

        None if it takes it, as far as that is known.
        """

    def unknown_variable(self, name: str) -> str | None:
        """Say that this version does not know one of its environment variables.

        None if it does, as far as that is known; variables of others are not judged.
        """

    @property
    def limits_problem(self) -> str | None:
        """Why this version cannot change limits while it runs; None if it may."""

    @property
    def environment(self) -> Mapping[str, Value]:
        """Variables that every launch gets beside the tuner's own environment."""

    @property
    def rules(self) -> FlagRules:
        """What is known of its flags."""

    @property
    def api(self) -> HttpApi:
        """How it is spoken to."""

    @property
    def log(self) -> LogReader:
        """What its log says."""

    @property
    def forks(self) -> ForkRecipe | None:
        """How its processes can be forked from one that has imported it; None if they cannot."""

    def command_line(
        self, model: str, configuration: Configuration, *, host: str, port: int, served_name: str
    ) -> tuple[str, ...]:
        """Return the command line that serves `model` as `served_name`.

        Raises `UsageError` for a flag that the tuner sets itself.
        """


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model that is served: how it is spoken to, where, and under which name."""

    api: HttpApi
    base_url: str
    served_name: str

    def url(self, call: HttpCall) -> str:
        """Return where a call is posted to."""
        return self.base_url.rstrip("/") + call.route
