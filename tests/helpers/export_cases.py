"""A deployment with everything that has to be quoted."""

from __future__ import annotations

import re
from dataclasses import replace

from tuner.analysis.recommendation.recommend import Recommendation
from tuner.configuration import Configuration

MODEL = "acme corp/My Model $HOME %n 'q' \"d\""
JSON_FLAG = '{"level": 3, "$(HOME)": ["a\\\\b", "{{ .Values }}"]}'
SECRET = "hf_abcdefghijklmnopqrstuvwx"
FLAGS = {
    "max_num_seqs": 512,
    "max_model_len": 1048576,
    "gpu_memory_utilization": 0.9,
    "enable_prefix_caching": False,
    "async_scheduling": True,
    "compilation_config": JSON_FLAG,
    "tensor_parallel_size": 2,
    "hf_token": SECRET,
}
ENVIRONMENT = {
    "VLLM_USE_X": True,
    "VLLM_ODD": "a 'b' \"c\" $d %e \\f `g` $(h) #i",
    "MY_PASSWORD": "hunter2hunter2",
    "VLLM_OTHER": f"Bearer {SECRET}",
}
WORDS = (
    MODEL,
    "--max-num-seqs=512",
    "--max-model-len=1048576",
    "--gpu-memory-utilization=0.9",
    "--no-enable-prefix-caching",
    "--async-scheduling",
    f"--compilation-config={JSON_FLAG}",
    "--tensor-parallel-size=2",
)
ODD = str(ENVIRONMENT["VLLM_ODD"])


def expanded(text: str) -> str:
    """Return what Kubernetes makes of a word, where every variable has the value SECRET.

    One $ of two, and a variable of $(NAME); another $ stays: `Expand` of Kubernetes'
    third_party/forked/golang/expansion.
    """
    return re.sub(
        r"\$\$|\$\([A-Za-z_][\w.-]*\)", lambda found: "$" if found[0] == "$$" else SECRET, text
    )


def having(found: Recommendation, **sections: dict[str, object]) -> Recommendation:
    configuration = Configuration(**sections)  # type: ignore[arg-type]
    return replace(found, best=replace(found.best, configuration=configuration))
