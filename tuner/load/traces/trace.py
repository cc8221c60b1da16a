"""A trace as an endless stream of requests: its own lengths, times and shared prefixes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from tuner.errors import UsageError
from tuner.load.arrivals import ARRIVAL_DECIMALS, drawn_arrivals_s
from tuner.load.draws import Draws
from tuner.load.synthetic import CountedTokens
from tuner.load.text_request import estimated_prompt_tokens, marked, stand_in_ids
from tuner.load.traces.part import TracePart
from tuner.load.traces.trace_file import TraceRow, read_trace
from tuner.load.workload_spec import COUNTING_TOKENS, WorkloadSpec
from tuner.records import Request, TextRequest, TokenArray

_BLOCKS, _OWN = 4, 5  # places beside the seed; synthetic.py and arrivals.py have 1, 2, 3 and 6


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """Facts from one reading of the whole file."""

    rows: int
    max_request_tokens: int
    first_s: float | None  # the first arrival; None for a trace without times
    span_s: float  # from the first arrival to the last
    max_hash_id: int
    sha256: str


class TraceStream:
    """The requests of a trace file, again and again, with fresh prompts each time."""

    def __init__(
        self, path: Path, spec: WorkloadSpec, draws: Draws, part: TracePart | None = None
    ) -> None:
        assert spec.trace is not None
        self._path = path
        self._spec = spec
        self._draws = draws
        self._part = part
        self._block_tokens = spec.trace.block_tokens
        self._counted = CountedTokens(spec.seed, spec.vocab_size)
        self.facts = _scan(path, self._rows(), self._block_tokens)
        if spec.load.arrivals == "trace" and self.facts.span_s == 0.0:
            raise UsageError(
                f"'{path}' has no arrival times that could be replayed; write load.arrivals: "
                "poisson"
            )

    @property
    def max_request_tokens(self) -> int:
        """The most tokens that one request can have; an estimate where prompts are text."""
        return self.facts.max_request_tokens

    def requests(self) -> Iterator[Request]:
        """Return a fresh iterator from the first request; it does not end."""
        own_times = self._spec.load.arrivals == "trace"
        drawn_s = drawn_arrivals_s("poisson", self._spec.seed, self._draws)
        request_id = 0
        for copy in count():
            for row in self._rows():
                arrival_s = self._own_time_s(row, copy) if own_times else next(drawn_s)
                yield self._request(row, request_id, copy, arrival_s)
                request_id += 1

    def _rows(self) -> Iterator[TraceRow]:
        return read_trace(self._path) if self._part is None else self._part.read(self._path)

    def _own_time_s(self, row: TraceRow, copy: int) -> float:
        """Scale to one request per second; a copy begins a mean gap after the last request."""
        facts = self.facts
        assert row.arrival_s is not None
        assert facts.first_s is not None
        scale = (facts.rows - 1) / facts.span_s
        own_s = (row.arrival_s - facts.first_s) * scale
        return round(own_s + copy * facts.rows, ARRIVAL_DECIMALS)

    def _request(self, row: TraceRow, request_id: int, copy: int, arrival_s: float) -> Request:
        if row.prompt is not None:
            prompt = row.prompt if copy == 0 else marked(row.prompt, copy)
            ids = stand_in_ids(estimated_prompt_tokens(prompt))
            return TextRequest(request_id, arrival_s, ids, row.output_tokens, prompt)
        return Request(request_id, arrival_s, self._ids(row, request_id, copy), row.output_tokens)

    def _ids(self, row: TraceRow, request_id: int, copy: int) -> TokenArray:
        """Return one piece per hash id, the same for each use of that id, then its own."""
        assert row.prompt_tokens is not None
        length = _sent_tokens(row.prompt_tokens)
        pieces = []
        for hash_id in row.hash_ids:
            number = copy * (self.facts.max_hash_id + 1) + hash_id
            rng = np.random.default_rng([self._spec.seed, _BLOCKS, number])
            # Even numbers are blocks, odd ones are what only one request has.
            piece = self._counted.draw(rng, 2 * number, self._block_tokens)
            pieces.append(piece[:length])
            length -= len(pieces[-1])
        if length > 0:
            rng = np.random.default_rng([self._spec.seed, _OWN, request_id])
            pieces.append(self._counted.draw(rng, 2 * request_id + 1, length))
        ids = np.concatenate(pieces)
        ids.setflags(write=False)
        return ids


def _sent_tokens(prompt_tokens: int) -> int:
    """Lengthen the shortest prompts, so that there is room to tell them apart."""
    return max(prompt_tokens, COUNTING_TOKENS)


def _scan(path: Path, trace: Iterator[TraceRow], block_tokens: int) -> TraceFacts:
    digest = hashlib.sha256()
    rows = longest = 0
    first_s: float | None = None
    last_s = 0.0
    max_hash_id = -1
    for row in trace:
        if rows == 0:
            first_s = row.arrival_s
        rows += 1
        last_s = 0.0 if row.arrival_s is None else row.arrival_s
        if row.prompt is not None:
            prompt = estimated_prompt_tokens(row.prompt)
        else:
            assert row.prompt_tokens is not None
            prompt = _sent_tokens(row.prompt_tokens)
        if (len(row.hash_ids) - 1) * block_tokens >= prompt:
            raise UsageError(
                f"'{path}', request {rows}: {len(row.hash_ids)} hash ids for {prompt} tokens; is "
                f"trace.block_tokens {block_tokens} right?"
            )
        longest = max(longest, prompt + row.output_tokens)
        max_hash_id = max(max_hash_id, *row.hash_ids, -1)
        digest.update(repr(row).encode())
    if rows == 0:
        raise UsageError(f"'{path}' has no requests")
    span_s = 0.0 if first_s is None else last_s - first_s
    return TraceFacts(rows, longest, first_s, span_s, max_hash_id, digest.hexdigest())
