"""Numbers as vLLM's command line takes them: 16k, 16K, 1.5m, and auto for the longest context."""

from __future__ import annotations

import re

from tuner.configuration import Value
from tuner.errors import UsageError

# of vLLM 0.32, `human_readable_int` and `human_readable_int_or_auto` in its argument parser
_WITH_SUFFIX = frozenset(
    (
        "max_model_len",
        "max_num_batched_tokens",
        "max_num_scheduled_tokens",
        "max_num_queued_tokens",
        "kv_cache_memory_bytes",
        "safetensors_prefetch_block_size",
    )
)
_OR_AUTO = "max_model_len"
LONGEST = -1  # of `max_model_len`: as long as the model and its memory allow
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_MOST_DIGITS = 20


def as_number(name: str, value: Value) -> Value:
    """Return the number that vLLM reads in a text; any other value as it is.

    Raises `UsageError` for parts of a binary unit, which vLLM refuses.
    """
    flag = name.replace("-", "_")
    if flag not in _WITH_SUFFIX or not isinstance(value, str):
        return value
    text = value.strip()
    if flag == _OR_AUTO and text.lower() == "auto":
        return LONGEST
    found = _NUMBER.fullmatch(text)
    if found is None or len(text) > _MOST_DIGITS:
        return value
    number, unit = found.groups()
    if unit in _DECIMAL:
        return int(float(number) * _DECIMAL[unit])
    if "." in number:
        raise UsageError(
            f"{name}: {text} is no whole number of {unit} ({_BINARY[unit]}); did you mean "
            f"{number}{unit.lower()} ({int(float(number) * _DECIMAL[unit.lower()])})?"
        )
    return int(number) * _BINARY[unit]
