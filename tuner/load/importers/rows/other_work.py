"""What a trace says of a request besides its tokens: work that we cannot repeat is refused."""

from __future__ import annotations

import re

from tuner.load.traces.trace_file import BadRowError, shown

# Names of fields that hold more work than tokens, or other arrivals than a time.
_OTHER_WORK = re.compile(
    r"image|audio|video|frame|multi_?modal|(^|_)mm(_|$)|lora|adapter|^delay|think_?time", re.I
)
_OTHER_KINDS = re.compile(r"^(image|audio|video|multimodal|embedding|embed|rerank|score)$", re.I)
_NOTHING: tuple[object, ...] = (
    None,
    "",
    0,
    0.0,
    "0",
    "0.0",
    False,
    [],
    {},
    "false",
    "False",
    "null",
    "None",
)


def says_other_work(name: str) -> bool:
    """Say whether a field of this name holds work that we cannot repeat, unless it is empty."""
    return _OTHER_WORK.search(name) is not None


def refuse_other_work(name: str, value: object) -> None:
    """Raise `BadRowError` if a field holds work that we cannot repeat."""
    if says_other_work(name) and value not in _NOTHING:
        raise BadRowError(
            f"{name} is {shown(value)}: a request that is more than text at a time, which this "
            "format's import cannot repeat"
        )
    if name.lower() in ("type", "modality", "task") and _OTHER_KINDS.match(str(value)):
        raise BadRowError(f"{name} is {shown(value)}: a request that is not of text alone")
