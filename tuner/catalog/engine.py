"""Engine profiles: the constants that belong to a version of the server, not to the card.

They are host time, launches, and how well kernels do; from YAML, shared by all GPUs unless the
profile has another value for one of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from tuner.catalog.shipped import shipped_folder, shipped_names
from tuner.catalog.yaml_files import read_yaml
from tuner.errors import UsageError, unknown_name


class EngineConstants(BaseModel):
    """What a step costs beside arithmetic and memory, in one version of the server."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    roofline_overlap: float = Field(ge=0, le=1)  # of compute and memory time of the same operators
    expert_matrix_share: float = Field(gt=0, le=1)  # of matrix_efficiency, experts
    expert_tile_share: float = Field(gt=0, le=1)  # of expert_efficiency, more tokens than experts
    padding_energy: float = Field(ge=0, le=1)  # of a row that pads a tile / that of a token's
    expert_skew: float = Field(ge=0)  # more tokens on the busiest GPU per doubling of them
    routing_spread: float = Field(gt=0, le=1)  # of a batch's tokens, as far as experts differ
    layer_us: float = Field(ge=0)  # short kernels of a layer
    expert_layer_us: float = Field(ge=0)  # what a mixture of experts adds to a layer
    sequence_us: float = Field(ge=0)  # of the GPU, for each sequence of a step
    quantize_us: float = Field(ge=0)  # of bringing one input of a layer into 8 bits
    logit_bytes: float = Field(ge=0)  # moved per sampled sequence and vocabulary entry
    sorting_bytes: float = Field(ge=0)  # more with top-k or top-p, which sort the vocabulary
    prefill_layer_us: float = Field(ge=0)  # what a prefill adds to each attention layer,
    prefill_latent_us: float = Field(ge=0)  # to one with a compressed cache,
    prefill_expert_us: float = Field(ge=0)  # to a mixture of experts,
    prefill_state_us: float = Field(ge=0)  # to a recurrent layer
    all_reduce_us: float = Field(ge=0)  # latency of one over two GPUs
    all_reduce_growth: float = Field(ge=0, le=2)  # exponent of the latency in the GPUs
    graph_tokens: int = Field(ge=1)  # CUDA graphs are captured up to so many tokens
    host_step_us: float = Field(ge=0)
    host_sequence_us: float = Field(ge=0)
    host_overlap: float = Field(ge=0, le=1)  # of host and GPU time, without async scheduling
    eager_layer_us: float = Field(ge=0)  # of the host, for a layer without CUDA graphs
    request_us: float = Field(ge=0)  # from sent to queued: client, HTTP, tokenizer
    token_us: float = Field(ge=0)  # of the API server, for each token it sends


class EngineProfile(EngineConstants):
    """A shipped profile."""

    name: str
    source: str
    gpus: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)  # other values for a GPU

    def constants_for(self, gpu: str) -> dict[str, float]:
        """Return the constants on a GPU, by name."""
        return {**self.model_dump(exclude={"name", "source", "gpus"}), **self.gpus.get(gpu, {})}


def engine_names() -> tuple[str, ...]:
    """Names of the shipped profiles, oldest first."""
    return tuple(sorted(shipped_names("engines"), key=_version))


def load_engine(name: str | None = None) -> EngineProfile:
    """Return a shipped profile, the newest one without a name. Raises `UsageError`."""
    names = engine_names()
    chosen = names[-1] if name is None else name
    if chosen not in names:
        raise UsageError(unknown_name("engine", chosen, names))
    return read_yaml(shipped_folder("engines") / f"{chosen}.yaml", EngineProfile)


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))
