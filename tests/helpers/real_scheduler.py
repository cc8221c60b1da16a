"""Runs inside vLLM's environment: its scheduler class on cases from stdin, its steps to stdout.

A step is a list of [request, tokens], sorted. The tokens "sampled" are those that the case states.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from vllm.config import (
    CacheConfig,
    DeviceConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    VllmConfig,
)
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

BLOCK = 16


def scheduler_of(case: dict[str, Any], model: str) -> Scheduler:
    model_config = ModelConfig(model=model, skip_tokenizer_init=True, dtype="float32", seed=0)
    cache_config = CacheConfig(
        block_size=BLOCK, enable_prefix_caching=case["prefix_caching"], cache_dtype="auto"
    )
    blocks = case["blocks"] + 1  # one is vLLM's null block
    cache_config.num_gpu_blocks = blocks
    config = VllmConfig(
        scheduler_config=SchedulerConfig(
            max_num_seqs=case["max_num_seqs"],
            max_num_batched_tokens=case["max_num_batched_tokens"],
            max_model_len=model_config.max_model_len,
            enable_chunked_prefill=case["chunked"],
            long_prefill_token_threshold=case["threshold"],
            async_scheduling=case["async"],
            is_encoder_decoder=False,
        ),
        model_config=model_config,
        cache_config=cache_config,
        parallel_config=ParallelConfig(),
        device_config=DeviceConfig("cpu"),
    )
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
    kind = AsyncScheduler if case["async"] else Scheduler
    return kind(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config),
        block_size=BLOCK,
        log_stats=True,
    )


def request_of(number: int, facts: dict[str, Any]) -> Request:
    sampling = SamplingParams(ignore_eos=True, max_tokens=len(facts["answer"]))
    sampling.update_from_generation_config({}, 2)
    return Request(
        request_id=str(number),
        prompt_token_ids=facts["prompt"],
        sampling_params=sampling,
        pooling_params=None,
        block_hasher=get_request_block_hasher(BLOCK, sha256),
    )


def output_of(step: Any) -> ModelRunnerOutput:
    ids = list(step.num_scheduled_tokens)
    return ModelRunnerOutput(
        req_ids=ids,
        req_id_to_index={name: i for i, name in enumerate(ids)},
        sampled_token_ids=[step.sampled[name] for name in ids],
        logprobs=None,
        prompt_logprobs_dict={},
        pooler_output=[],
    )


def run(case: dict[str, Any], model: str) -> dict[str, Any]:
    scheduler = scheduler_of(case, model)
    facts = case["requests"]
    todo = list(enumerate(facts))
    given = [0] * len(facts)  # answer tokens sampled so far
    steps: list[list[list[int]]] = []
    preemptions = queries = hits = 0
    flying: list[Any] = []
    limits = {int(step): pair for step, pair in case["limits"].items()}

    def submit(now: int) -> None:
        while todo and todo[0][1]["step"] <= now:
            number, what = todo.pop(0)
            scheduler.add_request(request_of(number, what))

    for number in range(case["steps"]):
        if number in limits:
            scheduler.max_num_active_reqs, scheduler.max_num_scheduled_tokens = limits[number]
        if not (case["async"] and scheduler.running):
            submit(number)
        step = scheduler.schedule()
        stats = scheduler.kv_cache_manager.make_prefix_cache_stats()
        if stats is not None:
            queries, hits = queries + stats.queries, hits + stats.hits
        submit(number)
        preemptions += len(step.preempted_req_ids or ())
        # what the step samples is known once it is scheduled: nothing, in the middle of a prompt
        step.sampled = {}
        for name in step.num_scheduled_tokens:
            request, index = scheduler.requests[name], int(name)
            whole = not request.is_prefill_chunk
            step.sampled[name] = [facts[index]["answer"][given[index]]] if whole else []
            given[index] += whole
        steps.append(sorted([int(n), t] for n, t in step.num_scheduled_tokens.items()))
        flying.append(step)
        while len(flying) > (1 if case["async"] else 0):
            first = flying.pop(0)
            scheduler.update_from_output(first, output_of(first))
        if not todo and not scheduler.has_requests():
            break
    return {"steps": steps, "queries": queries, "hits": hits, "preemptions": preemptions}


def main() -> None:
    init_none_hash(sha256)
    model = sys.argv[1]
    cases = json.loads(Path(sys.argv[2]).read_text())
    Path(sys.argv[3]).write_text(json.dumps([run(case, model) for case in cases]))


if __name__ == "__main__":
    main()
