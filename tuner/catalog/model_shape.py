"""Model shape: parameters, KV cache, experts and recurrent state, as sums over the layers."""

from __future__ import annotations

from dataclasses import dataclass

_EMBEDDING_BYTES = 2.0
_TYPICAL_CONTEXT = 1024  # tokens of a sequence whose share of a sliding window is counted


@dataclass(frozen=True, slots=True)
class Weights:
    """How one kind of layer stores and multiplies its parameters."""

    bytes: float = 2.0  # per parameter, scales included
    fp8: bool = False  # multiplied in 8 bits where the GPU can


@dataclass(frozen=True, slots=True)
class AttentionLayers:
    """Layers with a KV cache; the last `window_layers` of them have a sliding window."""

    layers: int
    parameters: int  # of one layer
    kv_elements: int  # cached per token, head and layer: keys and values
    pair_flop: float  # per query-key pair of one layer, all heads
    window_layers: int = 0
    window_tokens: int = 0
    latent: bool = False  # the cache is compressed, as DeepSeek does it
    weights: Weights = Weights()


@dataclass(frozen=True, slots=True)
class MlpLayers:
    """Dense layers: every token uses all their parameters."""

    layers: int
    parameters: int  # of one layer
    weights: Weights = Weights()


@dataclass(frozen=True, slots=True)
class ExpertLayers:
    """Mixtures of experts: `active` of `count` for each token, and shared parameters for all."""

    layers: int
    count: int
    active: int
    parameters: int  # of one expert
    shared_parameters: int = 0  # of one layer
    weights: Weights = Weights()
    shared_weights: Weights = Weights()
    reads_all: bool = False  # the kernel passes over idle experts too


@dataclass(frozen=True, slots=True)
class RecurrentLayers:
    """Mamba and linear-attention layers: a state of fixed size for each sequence."""

    layers: int
    parameters: int  # of one layer
    state_bytes: int  # of one sequence and layer
    weights: Weights = Weights()


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder-only model. Numbers are those of its language part."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int  # 1 for a compressed cache, of which every GPU holds a full copy
    intermediate: int  # of one expert in a mixture of experts, else of the MLP
    vocabulary: int
    max_position: int
    tied_embeddings: bool
    attention: AttentionLayers
    mlp: MlpLayers | None = None
    moe: ExpertLayers | None = None
    recurrent: RecurrentLayers | None = None
    head_weights: Weights = Weights()  # of the output matrix, where it is not the embedding
    kv_bytes: int = 2  # of a cached element, where the server is not told another

    @property
    def experts(self) -> int:
        """Experts of one layer; 1 without a mixture."""
        return 1 if self.moe is None else self.moe.count

    @property
    def active_experts(self) -> int:
        """Experts that one token passes through; 1 without a mixture."""
        return 1 if self.moe is None else self.moe.active

    @property
    def embedding_parameters(self) -> int:
        """Parameters of one vocabulary matrix."""
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """All parameters."""
        return int(sum(count for count, _ in self._stored()))

    @property
    def loaded_bytes(self) -> float:
        """Memory of the weights on all GPUs together."""
        return sum(count * each for count, each in self._stored())

    @property
    def expert_bytes(self) -> float:
        """Memory of the routed experts on all GPUs together."""
        moe = self.moe
        return 0.0 if moe is None else moe.layers * moe.count * moe.parameters * moe.weights.bytes

    @property
    def state_bytes(self) -> float:
        """Memory of the recurrent state of one sequence on all GPUs together."""
        return 0.0 if self.recurrent is None else self.recurrent.layers * self.recurrent.state_bytes

    def dense_parts(self) -> list[tuple[int, Weights]]:
        """Parameters, over all layers, that every token passes through, by kind of layer."""
        attention, moe = self.attention, self.moe
        parts = [(attention.layers * attention.parameters, attention.weights)]
        parts += [
            (part.layers * part.parameters, part.weights)
            for part in (self.mlp, self.recurrent)
            if part is not None
        ]
        if moe is not None:
            parts.append((moe.layers * moe.shared_parameters, moe.shared_weights))
        return parts

    @property
    def packed_parameters(self) -> float:
        """Those of fewer than 8 bits among them, which are unpacked before they are multiplied."""
        return float(sum(count for count, weights in self.dense_parts() if weights.bytes < 1.0))

    @property
    def quantized_inputs(self) -> int:
        """Inputs brought into 8 bits first, over all layers: two of each kind of layer."""
        moe = self.moe
        parts = [
            (part.layers, part.weights)
            for part in (self.attention, self.mlp, self.recurrent)
            if part is not None
        ]
        if moe is not None:
            parts.append((moe.layers, moe.weights))
            if moe.shared_parameters > self.hidden * moe.count:  # more than the router
                parts.append((moe.layers, moe.shared_weights))
        return sum(2 * layers for layers, weights in parts if weights.fp8)

    def kv_token_bytes(self, shards: int, element_bytes: int) -> float:
        """Cache of one token on one of `shards` GPUs; heads are copied if there are fewer.

        A layer with a sliding window keeps at most the window, so it counts by the share that it
        keeps of a sequence of 1,024 tokens.
        """
        attention = self.attention
        kept = min(attention.window_tokens / _TYPICAL_CONTEXT, 1.0)
        layers = attention.layers - attention.window_layers * (1.0 - kept)
        return layers * self.kv_layer_bytes(shards, element_bytes)

    def request_bytes(
        self, shards: int, element_bytes: int, tokens: int, in_flight_tokens: int
    ) -> float:
        """Cache, bytes, that vLLM reserves on one of `shards` GPUs for one request of `tokens`.

        A layer with a sliding window keeps the window and the scheduled, uncomputed tokens.
        """
        attention = self.attention
        windowed = min(attention.window_tokens + in_flight_tokens, tokens)
        whole_layers = attention.layers - attention.window_layers
        kept = whole_layers * tokens + attention.window_layers * windowed
        return kept * self.kv_layer_bytes(shards, element_bytes)

    def kv_layer_bytes(self, shards: int, element_bytes: int) -> float:
        """Cache of one token in one layer on one of `shards` GPUs."""
        return max(self.kv_heads / shards, 1) * self.attention.kv_elements * element_bytes

    def _stored(self) -> list[tuple[float, float]]:
        """Parameters and their bytes, by kind."""
        attention = self.attention
        head = 0 if self.tied_embeddings else self.embedding_parameters
        stored = [
            (float(self.embedding_parameters), _EMBEDDING_BYTES),
            (float(head), self.head_weights.bytes),
            (float(attention.layers * attention.parameters), attention.weights.bytes),
        ]
        stored += [
            (float(part.layers * part.parameters), part.weights.bytes)
            for part in (self.mlp, self.recurrent)
            if part is not None
        ]
        if self.moe is not None:
            moe = self.moe
            stored += [
                (float(moe.layers * moe.count * moe.parameters), moe.weights.bytes),
                (float(moe.layers * moe.shared_parameters), moe.shared_weights.bytes),
            ]
        return stored
