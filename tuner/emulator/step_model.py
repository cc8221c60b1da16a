"""The step model that a server's flags ask for: its weights' format, its drafts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from tuner.catalog.gpu import Gpu
from tuner.catalog.model import ModelShape
from tuner.configuration import Value
from tuner.emulator.engine.step import StepModel, graph_bound
from tuner.emulator.launch_rules import Launch, quantization_of, served_model
from tuner.emulator.quantization import in_format
from tuner.emulator.speculation import SpeculativeStepModel, speculation_of


def step_model(
    model: ModelShape,
    gpu: Gpu,
    flags: Mapping[str, Value],
    launch: Launch,
    acceptance: Mapping[str, float] | None,
) -> StepModel:
    """Return what a step takes with these flags, drafts included."""
    served = in_format(served_model(model, flags), quantization_of(flags))
    speculation = speculation_of(served, flags, acceptance)
    width = 1 if speculation is None else speculation.depth + 1
    plain = StepModel(
        served,
        gpu,
        launch.tensor_parallel_size,
        kv_bytes=launch.kv_bytes,
        eager=launch.eager,
        expert_parallel=launch.expert_parallel,
        async_scheduling=launch.async_scheduling,
        data_parallel_size=launch.data_parallel_size,
        graph_bound=min(graph_bound(launch.max_num_seqs, width), launch.max_num_batched_tokens),
    )
    if speculation is None:
        return plain
    values = {one.name: getattr(plain, one.name) for one in fields(plain) if one.init}
    return SpeculativeStepModel(**values, speculation=speculation)
