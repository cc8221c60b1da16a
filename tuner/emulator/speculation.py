"""Speculative decoding: the cost of drafts and of verifying them, and how many are accepted.

A step verifies k drafted tokens and one more of every sequence. Each drafted token is accepted
with probability `acceptance` if those before it were, so a step yields L = 1 + a + a^2 + ... + a^k
tokens on average (Leviathan et al. 2023, arXiv 2211.17192, equation 1). The engine makes one token
of each sequence at a time; each costs an L-th of a step. Means of time and energy are those of
whole steps, and so is the gap per token of a chunk; the scatter of L is not modelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from tuner.catalog.model import load_model
from tuner.catalog.model_shape import ModelShape
from tuner.configuration import Value
from tuner.emulator.engine.step import Batch, Decoding, StepModel, StepParts
from tuner.emulator.refusal import LaunchRefusedError
from tuner.errors import UsageError, unknown_name

_FLAG: Final = "speculative_config."
_SUFFIX_DEPTH = 24  # vLLM's own
FIELDS: Mapping[str, type] = {
    f"{_FLAG}method": str,
    f"{_FLAG}model": str,
    f"{_FLAG}num_speculative_tokens": int,
    f"{_FLAG}prompt_lookup_min": int,
    f"{_FLAG}prompt_lookup_max": int,
    f"{_FLAG}suffix_decoding_max_tree_depth": int,
}

# Probability that a drafted token is accepted if those before it were. `mtp` fits rates measured at
# depths 1 to 4 (0.88, 0.80, 0.72, 0.64; Qwen3.8-27B, sudoingX/qwen38-mtp) within 6 %; `ngram` and
# `suffix` those of SmolLM2-135M on real questions (22 % of 4 drafted tokens, 44 % of up to 8). The
# others are estimates. A workload's own `acceptance` replaces them.
ACCEPTANCE: Mapping[str, float] = {
    "ngram": 0.5,
    "suffix": 0.65,
    "mtp": 0.83,
    "eagle3": 0.72,
    "draft_model": 0.75,
}
# Host time to look drafts up in what was said before, for a step and for each of its sequences.
_LOOK_UP_S: Mapping[str, tuple[float, float]] = {"ngram": (1e-4, 5e-6), "suffix": (1e-4, 2e-5)}
ON_HOST: Final = frozenset(_LOOK_UP_S)  # vLLM schedules synchronously with these
_ONE_LAYER: Final = frozenset(("mtp", "eagle3"))


@dataclass(frozen=True, slots=True)
class Speculation:
    """How tokens are drafted.

    Attributes:
        method: as in vLLM's `speculative_config`.
        depth: drafted tokens of a step, k.
        acceptance: of a drafted token, if those before it were accepted.
        draft: what drafts on the GPU; None where the host does.
    """

    method: str
    depth: int
    acceptance: float
    draft: ModelShape | None = None

    @property
    def accepted(self) -> float:
        """Drafted tokens that a step accepts on average."""
        return sum(self.accepted_at)

    @property
    def accepted_at(self) -> tuple[float, ...]:
        """Share of drafts whose token at each position, from the first one on, is accepted."""
        return tuple(self.acceptance**i for i in range(1, self.depth + 1))

    @property
    def tokens(self) -> float:
        """Tokens that a step yields for each sequence on average, L."""
        return 1.0 + self.accepted


def draft_of(model: ModelShape, method: str) -> ModelShape | None:
    """Return the shape of a head that drafts for a model; None for a method of the host's.

    It is one layer like the model's own, with its vocabulary.
    """
    if method not in _ONE_LAYER:
        return None
    attention = replace(model.attention, layers=1, window_layers=0)
    return replace(
        model,
        layers=1,
        attention=attention,
        mlp=None if model.mlp is None else replace(model.mlp, layers=1),
        moe=None if model.moe is None else replace(model.moe, layers=1),
        recurrent=None,
        tied_embeddings=True,
    )


@dataclass(frozen=True, slots=True)
class SpeculativeStepModel(StepModel):
    """A step model whose decoding sequences draft and verify.

    Its steps are those of one token; see the top of this file.
    """

    speculation: Speculation = Speculation("ngram", 1, 0.0)

    def _decoding_of(self, sequences: int) -> Decoding:
        # without super(), which a dataclass with slots breaks
        plain = StepModel._decoding_of(self, sequences)
        how, model = self.speculation, self.model
        width, share = how.depth + 1, 1.0 / how.tokens
        verified = Batch(
            decode_sequences=sequences * width,
            sampled_sequences=sequences * width,
            scheduled_sequences=sequences,
        )
        parts = self._without_attention(verified)
        base_s, each_s = _LOOK_UP_S.get(how.method, (0.0, 0.0))
        parts = parts._replace(host_s=parts.host_s + base_s + each_s * sequences)
        key_bytes = plain.key_bytes
        if how.draft is not None:
            drafting = self._drafting()
            parts = _sum(parts, drafting._without_attention(_decoding(sequences)), how.depth)
            read = how.draft.layers * drafting._fixed.key_bytes * how.depth
            key_bytes += read / model.attention.layers
        return plain._replace(
            rest=_times(parts, share),
            pair_flop=plain.pair_flop * width * share,
            key_bytes=key_bytes * share,
            state_bytes=plain.state_bytes * share,
        )

    def parts(self, batch: Batch) -> StepParts:
        """Return the times of one step's parts; a step with prefills verifies as others do."""
        if not batch.decode_sequences:
            return StepModel.parts(self, batch)
        how = self.speculation
        share = (how.depth + 1) / how.tokens
        prompts = batch.sampled_sequences - batch.decode_sequences
        verified = round(batch.decode_sequences * share)
        widened = batch._replace(
            decode_sequences=verified,
            decode_context_tokens=round(batch.decode_context_tokens * share),
            sampled_sequences=verified + prompts,
        )
        return StepModel.parts(self, widened)

    def _drafting(self) -> StepModel:
        """Return the step model of what drafts on the GPU."""
        draft = self.speculation.draft
        assert draft is not None
        return StepModel(
            draft,
            self.gpu,
            self.tensor_parallel_size,
            kv_bytes=self.kv_bytes,
            eager=self.eager,
            async_scheduling=self.async_scheduling,
            graph_bound=self.graph_bound,
        )


def _decoding(sequences: int) -> Batch:
    return Batch(
        decode_sequences=sequences, sampled_sequences=sequences, scheduled_sequences=sequences
    )


def _sum(verified: StepParts, drafted: StepParts, times: int) -> StepParts:
    """Return the parts of a step that drafts so many times, then verifies."""
    return verified._replace(
        linear_compute_s=verified.linear_compute_s + times * drafted.linear_compute_s,
        linear_memory_s=verified.linear_memory_s + times * drafted.linear_memory_s,
        expert_compute_s=verified.expert_compute_s + times * drafted.expert_compute_s,
        expert_memory_s=verified.expert_memory_s + times * drafted.expert_memory_s,
        kernel_s=verified.kernel_s + times * drafted.kernel_s,
        memory_bytes=verified.memory_bytes + times * drafted.memory_bytes,
    )


def _times(parts: StepParts, share: float) -> StepParts:
    """Return a share of a step: time and power of the parts are linear in it."""
    return parts._replace(
        linear_compute_s=parts.linear_compute_s * share,
        linear_memory_s=parts.linear_memory_s * share,
        expert_compute_s=parts.expert_compute_s * share,
        expert_memory_s=parts.expert_memory_s * share,
        kernel_s=parts.kernel_s * share,
        prefill_s=parts.prefill_s * share,
        host_s=parts.host_s * share,
        memory_bytes=parts.memory_bytes * share,
    )


def speculation_of(
    model: ModelShape, flags: Mapping[str, Value], acceptance: Mapping[str, float] | None = None
) -> Speculation | None:
    """Return how these flags speculate; None if they do not.

    `acceptance` is that of a workload, by method. Raises `LaunchRefusedError` and `UsageError`.
    """
    fields = {name.removeprefix(_FLAG): v for name, v in flags.items() if name.startswith(_FLAG)}
    if not fields:
        return None
    draft_name = fields.get("model")
    method = str(fields.get("method", "draft_model" if draft_name else "none"))
    if method not in ACCEPTANCE:
        raise UsageError(unknown_name("emulated speculative method", method, ACCEPTANCE))
    depth = fields.get("num_speculative_tokens")
    if depth is None and method == "suffix":
        depth = fields.get("suffix_decoding_max_tree_depth", _SUFFIX_DEPTH)
    if depth is None or int(depth) < 1:
        raise LaunchRefusedError(
            "num_speculative_tokens must be provided and greater than 0", config="SpeculativeConfig"
        )
    rates = {**ACCEPTANCE, **(acceptance or {})}
    draft = draft_of(model, method)
    if method == "draft_model":
        draft = load_model(str(draft_name))
    return Speculation(method, int(depth), rates[method], draft)


def speculation_in(steps: StepModel) -> Speculation | None:
    """Return how a step model drafts; None if it does not."""
    return steps.speculation if isinstance(steps, SpeculativeStepModel) else None
