"""The scenarios of `bench_deployable`: what a study is asked, as a user would write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_KNOBS = """
flags:
  max_num_seqs: {type: power_of_two, low: 8, high: 1024}
  max_num_batched_tokens: {type: power_of_two, low: 1024, high: 16384}
device:
  power_limit_w: {type: share, low: 0.28, high: 1.0, steps: 20}
  sm_clock_mhz: {type: share, low: 0.394, high: 1.0, steps: 20}
"""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A model on a GPU under a load: the options of `tuner run`, and the flags all share."""

    name: str
    options: dict[str, Any]
    fixed: str = ""
    whole_space: str = ""  # where it is another one

    @property
    def space(self) -> str:
        """The space as YAML: by default the shipped `power` space with the fixed flags."""
        if self.whole_space:
            return self.whole_space
        fixed = f"fixed:\n  flags: {{{self.fixed}}}\n" if self.fixed else ""
        return f"name: power\n{_KNOBS}{fixed}"


SCENARIOS = (
    Scenario(
        "chat-8B-H100",
        {
            "emulate": "H100-SXM",
            "model": "meta-llama/Llama-3.1-8B-Instruct",
            "workload": "chat",
            "request_rate": 4.0,
            "slo": ["p99_tpot_ms<=25", "p99_ttft_ms<=500"],
        },
    ),
    Scenario(
        "chat-70B-8xH100",
        {
            "emulate": "H100-SXM",
            "model": "meta-llama/Llama-3.1-70B-Instruct",
            "workload": "chat",
            "request_rate": 4.0,
            "slo": ["p99_tpot_ms<=50", "p99_ttft_ms<=1000"],
        },
        fixed="tensor_parallel_size: 8",
    ),
    Scenario(
        "chat-30B-A3B-B200",
        {
            "emulate": "B200-SXM",
            "model": "Qwen/Qwen3-30B-A3B",
            "workload": "chat",
            "request_rate": 6.0,
            "slo": ["p99_tpot_ms<=40", "p99_ttft_ms<=500"],
        },
    ),
    Scenario(
        "code-8B-L40S",
        {
            "emulate": "L40S",
            "model": "meta-llama/Llama-3.1-8B-Instruct",
            "workload": "code",
            "request_rate": 1.5,
            "slo": ["p99_tpot_ms<=100", "p99_ttft_ms<=1500"],
        },
    ),
    Scenario(
        "reasoning-8B-H200",
        {
            "emulate": "H200-SXM",
            "model": "Qwen/Qwen3-8B",
            "workload": "reasoning",
            "request_rate": 0.25,  # at 0.4 the default misses the SLO in all hours, at 0.3 in one
            "slo": ["p99_tpot_ms<=15", "p99_ttft_ms<=1000"],
        },
    ),
)
