"""Workloads: a fixed, seeded, endless list of requests, the same for every trial and process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path

from tuner.catalog.yaml_files import find_yaml, read_yaml
from tuner.load.arrivals import drawn_arrivals_s
from tuner.load.draws import Draws, IndependentDraws, StratifiedDraws
from tuner.load.generations.generation_stream import GenerationStream
from tuner.load.synthetic import ConversationStream, PlainStream
from tuner.load.traces.part import TracePart, search_part, unseen_part
from tuner.load.traces.trace import TraceFacts, TraceStream
from tuner.load.workload_spec import FIRST_TOKEN_ID, LoadSpec, WorkloadSpec
from tuner.metrics import Output
from tuner.records import GenerationRequest, Load, Request, TextRequest

__all__ = ["FIRST_TOKEN_ID", "LoadSpec", "Workload", "WorkloadSpec", "load_workload"]

_DIGESTED_REQUESTS = 64


class Workload:
    """A spec with its stream of requests; `folder` is where the spec's trace is looked for.

    `draws` is how gaps and lengths are drawn, `part` which part of the trace is replayed; None is
    the whole trace.
    """

    def __init__(
        self,
        name: str,
        spec: WorkloadSpec,
        folder: Path = Path(),
        draws: Draws | None = None,
        part: TracePart | None = None,
    ) -> None:
        self.name = name
        self.spec = spec
        self._folder = folder
        self._draws = IndependentDraws() if draws is None else draws
        self._stream = _stream(spec, folder, self._draws, part)

    @cached_property
    def sha256(self) -> str:
        """What identifies the requests."""
        return self._digest()

    def representative(self, block_requests: int) -> Workload:
        """Return the requests that configurations are compared on.

        Every `block_requests` of them last as many mean gaps and, where lengths are drawn, ask for
        as many tokens as the workload does on average. Of a trace it is the first half.
        """
        part = None if self.facts is None else search_part(self.facts.rows)
        return self._variant(self.spec, StratifiedDraws(block_requests), part)

    def unseen(self, number: int) -> Workload:
        """Return requests of the same kind that `requests` and `representative` do not have.

        Each `number` from 0 on gives others. Of a trace it is the second half, begun elsewhere.
        """
        spec = self.spec.model_copy(update={"seed": self.spec.seed + 1 + number})
        part = None if self.facts is None else unseen_part(self.facts.rows, number)
        return self._variant(spec, IndependentDraws(), part)

    def _variant(self, spec: WorkloadSpec, draws: Draws, part: TracePart | None) -> Workload:
        """Return a variant; a part of a trace without a time span cannot be replayed."""
        if part is not None and spec.trace is not None and spec.load.arrivals == "trace":
            times_s = {row.arrival_s for row in part.read(self._folder / spec.trace.file)}
            part = part if len(times_s) > 1 else None
        return Workload(self.name, spec, self._folder, draws, part)

    @property
    def max_request_tokens(self) -> int:
        """The most tokens that one request can have at any level: prompt and output."""
        longest, levels = self._stream.max_request_tokens, self.spec.thinking_levels or {}
        ways = [how for how in (self.spec.thinking, *levels.values()) if how is not None]
        return max((how.longer(longest) for how in ways), default=longest)

    @property
    def facts(self) -> TraceFacts | None:
        """Facts from reading its trace; None for a synthetic workload."""
        return self._stream.facts if isinstance(self._stream, TraceStream) else None

    @property
    def default_load(self) -> Load:
        """The load that the file states."""
        return Load(
            concurrency=self.spec.load.concurrency, request_rate=self.spec.load.request_rate
        )

    def requests(self, level: str | None = None, steps: int | None = None) -> Iterator[Request]:
        """Return a fresh iterator from the first request; it does not end.

        `level` is one of `thinking_levels`, `steps` those of an image or video; None is the
        workload's own.
        """
        arrivals = self.spec.load.arrivals
        requests: Iterator[Request] = self._stream.requests()
        if self.spec.stop == "natural":
            requests = (replace(request, stops=True) for request in requests)
        if (thinking := self.spec.thinking_at(level)) is not None:
            requests = map(thinking.applied_to, requests)
        if steps is not None:
            requests = (_with_steps(request, steps) for request in requests)
        if self.spec.output is Output.ANSWER:
            requests = (replace(request, counts_whole=True) for request in requests)
        if arrivals in ("poisson", "trace"):
            return requests
        # The prompts stay the same under any arrivals.
        times_s = drawn_arrivals_s(arrivals, self.spec.seed, self._draws)
        return (
            replace(request, arrival_s=arrival_s)
            for request, arrival_s in zip(requests, times_s, strict=True)
        )

    @property
    def is_text(self) -> bool:
        """Whether prompts are sent as text rather than as random token ids."""
        return isinstance(next(self._stream.requests()), TextRequest)

    @property
    def is_chat(self) -> bool:
        """Whether prompts are sent as messages."""
        first = next(self._stream.requests())
        return isinstance(first, TextRequest) and not isinstance(first.prompt, str)

    def _digest(self) -> str:
        """Hash what is sent: the spec without its prose, and what this numpy draws from it."""
        digest = hashlib.sha256(json.dumps(self.spec.hashed_fields(), sort_keys=True).encode())
        if isinstance(self._stream, TraceStream):
            digest.update(self._stream.facts.sha256.encode())
        if isinstance(self._stream, GenerationStream) and self._stream.listed is not None:
            digest.update(self._stream.listed.sha256.encode())
        for request in islice(self.requests(), _DIGESTED_REQUESTS):
            facts = (request.request_id, f"{request.arrival_s:.3f}", request.output_tokens)
            digest.update(repr(facts).encode())
            digest.update(request.prompt_token_ids.astype("<i4").tobytes())
            if isinstance(request, TextRequest | GenerationRequest):
                digest.update(repr(request.prompt).encode())
            if isinstance(request, GenerationRequest):
                digest.update(f"{request.height}x{request.width} {request.seed}".encode())
        return digest.hexdigest()


def _stream(
    spec: WorkloadSpec, folder: Path, draws: Draws, part: TracePart | None
) -> PlainStream | ConversationStream | TraceStream | GenerationStream:
    if spec.generation is not None:
        return GenerationStream(spec.generation, spec.seed, folder, draws)
    if spec.trace is not None:
        return TraceStream(folder / spec.trace.file, spec, draws, part)
    if spec.shared_prefix is not None or spec.turns is not None:
        return ConversationStream(spec, draws)
    return PlainStream(spec, draws)


def _with_steps(request: Request, steps: int) -> Request:
    return replace(request, steps=steps) if isinstance(request, GenerationRequest) else request


def load_workload(name_or_path: str) -> Workload:
    """Return the shipped workload of that name, or the one in a YAML file.

    Raises `UsageError` that names the file, the field, what was found and what is allowed.
    """
    path = find_yaml("workloads", name_or_path)
    return Workload(path.stem, read_yaml(path, WorkloadSpec), path.parent)
