"""Workloads: a fixed, seeded, endless list of requests, the same for every trial and process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import count, islice

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tuner.load.lengths import IntArray, Lengths
from tuner.records import Load, Request, TokenArray
from tuner.yaml_files import find_yaml, read_yaml

# Special and byte tokens have low ids in most vocabularies.
FIRST_TOKEN_ID = 256
# So many leading tokens of a prompt count the requests, so that no two prompts are alike.
_COUNTING_TOKENS = 4

_BLOCK_REQUESTS = 64
_KEPT_TOKENS = 2**25  # at most 128 MiB of prompts are kept in memory
_ARRIVAL_DECIMALS = 6  # microseconds: the last bits of a float differ between CPUs


class LoadSpec(BaseModel):
    """How the requests are offered unless the study says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrency: int | None = Field(default=None, ge=1)
    request_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one(self) -> LoadSpec:
        if (self.concurrency is None) == (self.request_rate is None):
            raise ValueError("write either concurrency (closed loop) or request_rate (open loop)")
        return self


class WorkloadSpec(BaseModel):
    """A workload file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field(min_length=1)
    sources: tuple[str, ...] = ()
    prompt_tokens: Lengths
    output_tokens: Lengths
    load: LoadSpec
    seed: int = Field(default=0, ge=0)
    vocab_size: int = Field(default=32000, ge=2 * FIRST_TOKEN_ID, le=2**30)

    @field_validator("prompt_tokens")
    @classmethod
    def _room_to_count(cls, lengths: Lengths) -> Lengths:
        if lengths.min < _COUNTING_TOKENS:
            raise ValueError(
                f"prompts need at least {_COUNTING_TOKENS} tokens, found {lengths.min}: "
                "shorter ones would repeat and be answered from the prefix cache"
            )
        return lengths


class Workload:
    """A spec with its stream of requests."""

    def __init__(self, name: str, spec: WorkloadSpec) -> None:
        self.name = name
        self.spec = spec
        # The first requests are kept, so that the trials of a study do not draw them again.
        self._blocks: dict[int, tuple[Request, ...]] = {}
        self._kept_blocks = 1 + _KEPT_TOKENS // (_BLOCK_REQUESTS * spec.prompt_tokens.max)
        self.sha256 = self._digest()

    @property
    def max_request_tokens(self) -> int:
        """The most tokens that one request can have: prompt and output."""
        return self.spec.prompt_tokens.max + self.spec.output_tokens.max

    @property
    def default_load(self) -> Load:
        """The load that the file states."""
        return Load(
            concurrency=self.spec.load.concurrency, request_rate=self.spec.load.request_rate
        )

    def requests(self) -> Iterator[Request]:
        """Return a fresh iterator from the first request; it does not end."""
        start_s = 0.0
        for index in count():
            block = self._blocks.get(index)
            if block is None:
                block = self._draw_block(index, start_s)
                if index < self._kept_blocks:
                    self._blocks[index] = block
            yield from block
            start_s = block[-1].arrival_s

    def _draw_block(self, index: int, start_s: float) -> tuple[Request, ...]:
        spec = self.spec
        rng = np.random.default_rng([spec.seed, index])
        prompt_lengths = spec.prompt_tokens.draw(rng, _BLOCK_REQUESTS)
        output_lengths = spec.output_tokens.draw(rng, _BLOCK_REQUESTS).tolist()
        gaps_s = rng.standard_exponential(_BLOCK_REQUESTS)
        arrivals_s = np.round(start_s + np.cumsum(gaps_s), _ARRIVAL_DECIMALS).tolist()
        first_id = index * _BLOCK_REQUESTS
        prompts = self._draw_prompts(rng, first_id, prompt_lengths)
        return tuple(
            Request(first_id + i, arrivals_s[i], prompts[i], output_lengths[i])
            for i in range(_BLOCK_REQUESTS)
        )

    def _draw_prompts(
        self, rng: np.random.Generator, first_id: int, lengths: IntArray
    ) -> list[TokenArray]:
        ends = np.cumsum(lengths)
        tokens = rng.integers(FIRST_TOKEN_ID, self.spec.vocab_size, ends[-1], dtype=np.int32)
        starts = ends - lengths
        # The request's number in base `base`, lowest digit first: even the first block of two
        # neighbouring prompts differs, so none is found in a prefix cache.
        base = self.spec.vocab_size - FIRST_TOKEN_ID
        offsets = np.random.default_rng(self.spec.seed).integers(0, base, _COUNTING_TOKENS)
        rest = first_id + np.arange(len(lengths))
        for place in range(_COUNTING_TOKENS):
            tokens[starts + place] = FIRST_TOKEN_ID + (rest + offsets[place]) % base
            rest //= base
        tokens.setflags(write=False)
        return np.split(tokens, ends[:-1])

    def _digest(self) -> str:
        """Hash what is sent: the spec without its prose, and what this numpy draws from it."""
        spec = self.spec.model_dump(mode="json", exclude={"description", "sources"})
        digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode())
        for request in islice(self.requests(), _BLOCK_REQUESTS):
            facts = (request.request_id, f"{request.arrival_s:.3f}", request.output_tokens)
            digest.update(repr(facts).encode())
            digest.update(request.prompt_token_ids.astype("<i4").tobytes())
        return digest.hexdigest()


def load_workload(name_or_path: str) -> Workload:
    """Return the shipped workload of that name, or the one in a YAML file.

    Raises `UsageError` that names the file, the field, what was found and what is allowed.
    """
    path = find_yaml("workloads", name_or_path)
    return Workload(path.stem, read_yaml(path, WorkloadSpec))
