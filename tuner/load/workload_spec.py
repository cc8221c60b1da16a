"""Workload file: its fields, and how they are validated."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tuner.errors import UsageError
from tuner.load.arrivals import Arrivals
from tuner.load.generations.generation_spec import GenerationSpec
from tuner.load.lengths import Lengths, Tokens
from tuner.load.thinking import Levels, Thinking
from tuner.metrics import OUTPUT_KINDS, Output, OutputKind

# Special and byte tokens have low ids in most vocabularies.
FIRST_TOKEN_ID = 256
# So many leading tokens of a prompt count the requests, so that no two prompts are alike.
COUNTING_TOKENS = 4

# Defaults of these fields; a file without them keeps its hash.
_UNWRITTEN = {
    "generation": None,
    "thinking": None,
    "thinking_levels": None,
    "trace": None,
    "shared_prefix": None,
    "turns": None,
    "acceptance": None,
    "stop": "length",
}
_PROSE = {"description", "sources"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoadSpec(_Part):
    """How the requests are offered unless the study says otherwise.

    `arrivals` is how an open load's requests are spread over time, also where the rate comes from
    the command line.
    """

    concurrency: int | None = Field(default=None, ge=1)
    request_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    arrivals: Arrivals = "poisson"

    @model_validator(mode="after")
    def _one(self) -> LoadSpec:
        if (self.concurrency is None) == (self.request_rate is None):
            raise ValueError("write either concurrency (closed loop) or request_rate (open loop)")
        return self


class SharedPrefix(_Part):
    """A system prompt before every prompt: one of `groups`, each equally often."""

    tokens: Annotated[int, Field(ge=COUNTING_TOKENS, le=2**20)]
    groups: Annotated[int, Field(ge=1, le=2**20)] = 1


class Turns(_Part):
    """Conversations: a later turn's prompt begins with all that was said before.

    What the model answered is stood in for by ids drawn for it. The number of turns is geometric
    with this mean, at most `max`; a conversation also ends before a prompt would be longer than
    `max_prompt_tokens`. A turn comes `conversations` requests after the one before it.
    """

    mean: Annotated[float, Field(ge=1, le=1000)]
    max: Annotated[int, Field(ge=1, le=1000)]
    max_prompt_tokens: Tokens | None = None
    conversations: Annotated[int, Field(ge=1, le=2**16)] = 64

    @model_validator(mode="after")
    def _ordered(self) -> Turns:
        if self.mean > self.max:
            raise ValueError(f"mean {self.mean:g} is more than max {self.max}")
        return self


class TraceSource(_Part):
    """A file of requests, as `tuner workload import` writes it, beside the YAML file.

    `block_tokens` is how many tokens one of its hash ids stands for.
    """

    file: Annotated[str, Field(min_length=1)]
    block_tokens: Annotated[int, Field(ge=1, le=2**16)] = 512

    @field_validator("file")
    @classmethod
    def _known_form(cls, file: str) -> str:
        if not file.endswith((".jsonl", ".jsonl.gz")) or PurePath(file).is_absolute():
            raise ValueError(
                f"found '{file}'; it must be a path beside the YAML file that ends in .jsonl.gz "
                "or .jsonl (see `tuner workload import`)"
            )
        return file


class WorkloadSpec(_Part):
    """A workload file.

    With `shared_prefix` or `turns`, `prompt_tokens` is what a request adds to them. `acceptance` is
    for the emulator: by speculative method, the probability that a drafted token is accepted if
    those before it were. With `stop: natural` an answer ends where the model ends it, and
    `output_tokens` of the trace is the most that it may have. With `generation` it asks for images
    or videos instead of tokens. `thinking_levels` are those of the knob `thinking`, by name; energy
    is then counted by answers.
    """

    description: str = Field(min_length=1)
    sources: tuple[str, ...] = ()
    prompt_tokens: Lengths | None = None
    output_tokens: Lengths | None = None
    generation: GenerationSpec | None = None
    trace: TraceSource | None = None
    shared_prefix: SharedPrefix | None = None
    turns: Turns | None = None
    load: LoadSpec
    stop: Literal["length", "natural"] = "length"
    acceptance: dict[str, Annotated[float, Field(ge=0, lt=1)]] | None = None
    thinking: Thinking | None = None
    thinking_levels: Levels | None = None
    seed: int = Field(default=0, ge=0)
    vocab_size: int = Field(default=32000, ge=2 * FIRST_TOKEN_ID, le=2**30)

    @field_validator("prompt_tokens")
    @classmethod
    def _room_to_count(cls, lengths: Lengths | None) -> Lengths | None:
        if lengths is not None and lengths.min < COUNTING_TOKENS:
            raise ValueError(
                f"prompts need at least {COUNTING_TOKENS} tokens, found {lengths.min}: "
                "shorter ones would repeat and be answered from the prefix cache"
            )
        return lengths

    @model_validator(mode="after")
    def _one_kind(self) -> WorkloadSpec:
        lengths = {"prompt_tokens": self.prompt_tokens, "output_tokens": self.output_tokens}
        if self.generation is not None:
            self._require_no_tokens()
            return self
        if self.trace is None:
            if self.stop == "natural":
                raise ValueError("stop: natural needs a trace of texts; a length is for `length`")
            if missing := [name for name, value in lengths.items() if value is None]:
                raise ValueError(
                    f"{' and '.join(missing)} missing; write prompt_tokens and output_tokens, or "
                    "trace, or generation"
                )
            if self.load.arrivals == "trace":
                raise ValueError("load.arrivals is 'trace', but there is no trace")
            return self
        synthetic = {**lengths, "shared_prefix": self.shared_prefix, "turns": self.turns}
        if written := [name for name, value in synthetic.items() if value is not None]:
            raise ValueError(f"a trace has its own {', '.join(written)}; remove them")
        return self

    @model_validator(mode="after")
    def _room_in_a_prompt(self) -> WorkloadSpec:
        limit = None if self.turns is None else self.turns.max_prompt_tokens
        if limit is not None and self.first_prompt_max > limit:
            raise ValueError(
                f"turns.max_prompt_tokens {limit} is less than a first prompt can have "
                f"({self.first_prompt_max})"
            )
        return self

    def _require_no_tokens(self) -> None:
        """Raise `ValueError` for a field that images and videos do not have."""
        thinking = ("thinking", "thinking_levels")
        asked = ("trace", "shared_prefix", "turns", "acceptance", *thinking)
        fields = ("prompt_tokens", "output_tokens", *asked)
        if written := [name for name in fields if getattr(self, name) is not None]:
            raise ValueError(f"generation has no {', '.join(written)}; remove them")
        if self.stop == "natural" or self.load.arrivals == "trace":
            raise ValueError("generation has no stop: natural and no arrivals: trace")

    @property
    def output(self) -> Output:
        """What the answers are."""
        if self.generation is not None:
            return self.generation.kind
        return Output.TEXT if self.thinking_levels is None else Output.ANSWER

    @property
    def default_level(self) -> str | None:
        """The level that the workload's own thinking is; None if it is none of them."""
        levels = (self.thinking_levels or {}).items()
        return next((name for name, how in levels if how == self.thinking), None)

    def thinking_at(self, level: str | None) -> Thinking | None:
        """Return how a level thinks; None is the workload's own. Raises `UsageError`."""
        if level is None:
            return self.thinking
        levels = self.thinking_levels or {}
        if level not in levels:
            known = ", ".join(levels) or "none"
            raise UsageError(f"the workload has no level of thinking '{level}'; it has: {known}")
        return levels[level]

    @property
    def kind(self) -> OutputKind:
        """The unit of the answers, and their metrics."""
        return OUTPUT_KINDS[self.output]

    @property
    def first_prompt_max(self) -> int:
        """The most tokens of a conversation's first prompt."""
        assert self.prompt_tokens is not None
        prefix = 0 if self.shared_prefix is None else self.shared_prefix.tokens
        return prefix + self.prompt_tokens.max

    def hashed_fields(self) -> dict[str, Any]:
        """Return what decides the requests: all but the prose, and but what is not written.

        A trace goes in by its content, not by its name.
        """
        fields = self.model_dump(mode="json", exclude=_PROSE)
        for name, unwritten in _UNWRITTEN.items():
            if fields[name] == unwritten:
                del fields[name]
        if self.trace is not None:
            del fields["prompt_tokens"], fields["output_tokens"], fields["trace"]["file"]
        if fields["load"]["arrivals"] == "poisson":
            del fields["load"]["arrivals"]
        return fields
