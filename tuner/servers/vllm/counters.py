"""vLLM's Prometheus counters, and the settings that it resolved."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import count, takewhile
from typing import TypeVar

import aiohttp

from tuner.configuration import Value
from tuner.servers.openai.replies import body_of, reply_to
from tuner.servers.server import Flags, ServerSample, ServerUnreachableError

_Name = TypeVar("_Name", bound=Hashable)

_FIELDS = {
    b"vllm:num_requests_running": "running",
    b"vllm:num_requests_waiting": "waiting",
    b"vllm_omni:num_requests_running": "running",
    b"vllm_omni:num_requests_waiting": "waiting",
    b"vllm:prompt_tokens_total": "prompt_tokens",
    b"vllm:generation_tokens_total": "generation_tokens",
    b"vllm:num_preemptions_total": "preemptions",
    b"vllm:spec_decode_num_drafts_total": "drafts",
    b"vllm:spec_decode_num_draft_tokens_total": "drafted_tokens",
    b"vllm:spec_decode_num_accepted_tokens_total": "accepted_tokens",
    b"tuner_emulated:energy_joules_total": "emulated_energy_j",
    b"tuner_emulated:power_watts": "emulated_power_w",
    b"tuner_emulated:sm_clock_megahertz": "emulated_sm_clock_mhz",
}
# One pass over the page, which is mostly histograms. Label values may hold blanks and braces, and
# an exemplar may follow the value.
_LABELS = rb"""(?:\{(?:[^"}\n]|"(?:\\.|[^"\\\n])*")*\})?"""
_SAMPLE_LINE = re.compile(
    b"^(" + b"|".join(map(re.escape, _FIELDS)) + b")" + _LABELS + rb" +(\S+)", re.MULTILINE
)
_ACCEPTED_AT_LINE = re.compile(
    b"^vllm:spec_decode_num_accepted_tokens_per_pos_total(" + _LABELS + rb") +(\S+)", re.MULTILINE
)
_POSITION = re.compile(rb'[{,]position="(\d{1,3})"')
_SAID_CHARS = 200
# The flags whose resolved values are read, each with its part of vLLM's configuration.
_SETTINGS: Mapping[str, tuple[str, Callable[[float], Value]]] = {
    "max_num_seqs": ("scheduler_config", int),
    "max_num_batched_tokens": ("scheduler_config", int),
    "max_model_len": ("model_config", int),
    "gpu_memory_utilization": ("cache_config", float),
}


async def scrape(
    session: aiohttp.ClientSession, base_url: str, *, deadline_s: float = 5.0
) -> ServerSample:
    """Read `/metrics`. Raises `ServerUnreachableError`."""
    url = f"{base_url}/metrics"
    page = await _get_if_there(session, url, deadline_s)
    if page is None:
        raise ServerUnreachableError(f"no answer from {url}: 404 Not Found")
    return parse_metrics(page)


def parse_metrics(page: bytes) -> ServerSample:
    """Sum each metric over its labels; a value that is not finite counts as not reported."""
    samples = ((_FIELDS[name], text) for name, text in _SAMPLE_LINE.findall(page))
    at = _sums(
        (int(position[1]), text)
        for labels, text in _ACCEPTED_AT_LINE.findall(page)
        if (position := _POSITION.search(labels))
    )
    accepted_at = tuple(at[i] for i in takewhile(at.__contains__, count()))
    return ServerSample(**_sums(samples), accepted_at=accepted_at)


def _sums(samples: Iterable[tuple[_Name, bytes]]) -> dict[_Name, float]:
    sums: dict[_Name, float] = {}
    for name, text in samples:
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(value):
            sums[name] = sums.get(name, 0.0) + value
    return sums


async def resolved_settings(
    session: aiohttp.ClientSession, base_url: str, *, deadline_s: float = 120.0
) -> Flags | None:
    """Read the flags from `/server_info`; None where there is none.

    The route needs VLLM_SERVER_DEV_MODE=1. vLLM collects facts of the whole machine for the
    answer, which takes seconds on a busy one.

    Only these fields are taken: the answer also holds the server's environment and tokens.
    Raises `ServerUnreachableError`.
    """
    url = f"{base_url}/server_info?config_format=json"
    page = await _get_if_there(session, url, deadline_s)
    if page is None:
        return None
    try:
        config = json.loads(page)["vllm_config"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ServerUnreachableError(f"{url} answered no vLLM configuration") from error
    if not isinstance(config, dict):
        raise ServerUnreachableError(f"{url} answered no vLLM configuration but {type(config)}")

    settings: dict[str, Value] = {}
    for name, (section, kind) in _SETTINGS.items():
        fields = config.get(section)
        value = fields.get(name) if isinstance(fields, dict) else None
        if isinstance(value, int | float) and abs(value) < math.inf:  # NaN is not
            settings[name] = kind(value)
    return settings


async def _get_if_there(
    session: aiohttp.ClientSession, url: str, deadline_s: float
) -> bytes | None:
    timeout = aiohttp.ClientTimeout(total=deadline_s)
    try:
        async with reply_to(session, "GET", url, timeout=timeout) as response:
            if response.status == 404:
                return None
            response.raise_for_status()
            return await body_of(response)
    except (aiohttp.ClientError, TimeoutError) as error:
        said = str(error)[:_SAID_CHARS] or "timed out"  # it may quote all that was answered
        raise ServerUnreachableError(f"no answer from {url}: {said}") from error
