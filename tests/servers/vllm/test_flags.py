"""What is known of vLLM's flags without one."""

from __future__ import annotations

from tuner.configuration import Configuration, Value
from tuner.servers.vllm.flags import VllmFlags

FLAGS = VllmFlags()


def test_vllms_own_rule_is_kept() -> None:
    def limits(tokens: int, seqs: int) -> dict[str, Value]:
        return {"max_num_batched_tokens": tokens, "max_num_seqs": seqs}

    assert FLAGS.refusal(limits(512, 512)) is None
    assert "(512) must be greater" in (FLAGS.refusal(limits(512, 1024)) or "")
    assert FLAGS.refusal({"max_num_seqs": 1024}) is None


def test_a_refusal_is_left_to_vllm_where_a_value_is_in_its_own_notation() -> None:
    assert FLAGS.refusal({"max_num_batched_tokens": "2k", "max_num_seqs": 4096}) is None


def test_gpus_are_the_product_of_what_is_parallel() -> None:
    assert FLAGS.gpus_used(Configuration()) == 1
    sizes: dict[str, Value] = {"tensor_parallel_size": 2, "data_parallel_size": 4}
    assert FLAGS.gpus_used(Configuration(flags=sizes)) == 8
