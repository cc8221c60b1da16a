"""Time and power of one batch of images or videos on one GPU or several.

A roofline of FLOPs (products with weights, attention), of the traffic of elementwise work, and of
the host that launches kernels; exchanges of sequence parallelism; decoding, which is not shared. A
part's time and power at lower clocks follow the GPU's voltage, as for text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tuner.catalog.diffusion.constants import DiffusionConstants
from tuner.catalog.diffusion.model import DiffusionModel
from tuner.catalog.gpu import Gpu
from tuner.emulator.diffusion.launch import DiffusionLaunch
from tuner.emulator.engine.power import PowerModel, StepCost
from tuner.records import GenerationRequest

_HOST_NORM = 3.0  # the longer of GPU and host, rounded where they are alike
_TRAFFIC_OF_LINEAR = 3.0  # linear attention comes with convolutions over a wider state


class Picture(NamedTuple):
    """What decides the work of a request; requests that are alike can be made in one batch."""

    height: int
    width: int
    frames: int
    steps: int

    @classmethod
    def of(cls, request: GenerationRequest) -> Picture:
        """Return the class of a request."""
        return cls(request.height, request.width, request.frames, request.steps)


class BatchParts(NamedTuple):
    """Seconds of a whole batch on each GPU at the highest clock, by what they wait for."""

    linear_s: float
    attention_s: float
    traffic_s: float
    small_s: float  # small kernels of each layer
    host_s: float
    exchange_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class DiffusionCost:
    """The cost of batches of one model on one kind of GPU, launched one way."""

    model: DiffusionModel
    gpu: Gpu
    constants: DiffusionConstants
    launch: DiffusionLaunch

    def parts(self, picture: Picture, batch: int) -> BatchParts:
        """Return the seconds of a batch of pictures that are alike."""
        model, gpu, known, launch = self.model, self.gpu, self.constants, self.launch
        tokens = model.picture_tokens(picture.height, picture.width, picture.frames)
        sequence = tokens + model.text_tokens
        layers, width, gpus = model.layers, model.width, launch.sequence_gpus
        steps = picture.steps
        samples = batch * model.passes / launch.cfg_parallel_size * steps
        peak = 1e12 * gpu.bf16_tflops
        weighted = model.token_weights * tokens + model.text_weights * model.text_tokens
        linear_s = 2 * layers * width**2 * weighted * samples / (peak * known.linear_efficiency)
        pairs = layers * sequence**2 + model.more_attention_layers * tokens**2
        is_full = model.attention == "full"
        attention_s = 4 * width * pairs * samples / (peak * known.attention_efficiency)
        attention_s *= 1.0 + known.ring_share * (launch.ring_degree - 1) if is_full else 0.0
        moved = known.traffic_bytes * layers * width * sequence * samples
        traffic_s = moved * (1.0 if is_full else _TRAFFIC_OF_LINEAR) / (gpu.memory_tb_s * 1e12)
        pixels = picture.height * picture.width * picture.frames * batch
        is_image = picture.frames == 1
        pixel_ns = known.image_pixel_ns if is_image else known.video_pixel_ns
        share = model.measured_factor / gpus
        return BatchParts(
            linear_s * share,
            attention_s * share,
            traffic_s * share,
            1e-6 * known.layer_us * layers * steps,
            1e-6 * known.host_us * layers * steps,
            self._exchange_s(2 * layers * width * sequence * samples, layers * steps),
            1e-9 * pixel_ns * pixels + 1e-3 * known.encode_ms,
        )

    def _exchange_s(self, state_bytes: float, turns: int) -> float:
        """Return the time of exchanges: `state_bytes` pass through all layers and steps."""
        known, launch = self.constants, self.launch
        ulysses, ring, gpus = launch.ulysses_degree, launch.ring_degree, launch.sequence_gpus
        latency_s = (
            1e-6 * turns * (known.ulysses_us * math.log2(ulysses) + known.ring_us * (ring - 1))
        )
        all_to_all = 4 * state_bytes / gpus * (ulysses - 1) / ulysses / (1e9 * known.ulysses_gb_s)
        around = 2 * state_bytes / gpus * (ring - 1) / (1e9 * known.ring_gb_s)
        return latency_s + all_to_all + around

    def at_clock(self, power: PowerModel, parts: BatchParts) -> Callable[[float], StepCost]:
        """Return what gives time and power of one GPU of the batch at a clock."""
        idle_w, known = self.gpu.idle_w, self.constants

        def cost(clock_mhz: float) -> StepCost:
            at = power.at(clock_mhz)
            linear_s, attention_s = parts.linear_s * at.slower, parts.attention_s * at.slower
            traffic_s, decode_s = parts.traffic_s * at.starved, parts.decode_s * at.slower
            busy_s = linear_s + attention_s + traffic_s + parts.small_s * at.slower
            step_s = _rounded_max(busy_s, parts.host_s) + parts.exchange_s
            waits_s = step_s - linear_s - attention_s - traffic_s
            duration_s = step_s + decode_s
            spent = (
                (known.linear_w, linear_s),
                (known.attention_w, attention_s),
                (known.traffic_w, traffic_s),
                (known.wait_w, waits_s),
                (known.decode_w, decode_s),
            )
            over_idle = sum((watts - idle_w) * seconds for watts, seconds in spent)
            power_w = idle_w + at.switching * over_idle / duration_s
            return StepCost(duration_s, power_w, clock_mhz)

        return cost

    def batch(self, power: PowerModel, picture: Picture, batch: int) -> StepCost:
        """Return the cost of a batch under a power limit and a locked clock, on each GPU."""
        return power.governed(self.at_clock(power, self.parts(picture, batch)))


def _rounded_max(one: float, other: float) -> float:
    longest = max(one, other)
    if longest == 0.0:
        return 0.0
    both = (one / longest) ** _HOST_NORM + (other / longest) ** _HOST_NORM
    return longest * math.pow(both, 1.0 / _HOST_NORM)
