"""Raw record format: a run as zlib-compressed columns of numbers after a version byte.

Layout: version (1 byte), zlib of [header length (4 bytes, little endian), header (JSON), columns].
Time stamps grow in small steps, so a column holds the differences of its 64-bit patterns (which
is lossless, unlike differences of floats), transposed so that equal bytes lie side by side.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from itertools import count, takewhile
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tuner.errors import OperatorNeededError, PreflightError
from tuner.host.redaction import redacted
from tuner.metrics import Output
from tuner.records import (
    DraftCounts,
    EarlyEnd,
    FloatArray,
    PowerTimeline,
    RawRun,
    RequestRecord,
    RequestState,
    ServerTimeline,
    Source,
)

FORMAT_VERSION = 1
# A window of 60,000 requests with 500 tokens each; beyond it a record is a bomb, and no window.
MOST_BYTES = 256 * 2**20
_STEP_BYTES = 4 * 2**20
_DAMAGE = (zlib.error, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)
_STATES = (RequestState.DONE, RequestState.FAILED, RequestState.CUT)  # order is part of the format


def encode(run: RawRun) -> bytes:
    """Return `run` as bytes; `decode` restores it exactly, except secrets in its texts."""
    columns = _columns(run)
    header: dict[str, Any] = {
        "columns": [[name, len(values)] for name, values in columns.items()],
        "errors": {
            str(i): redacted(r.error) for i, r in enumerate(run.requests) if r.error is not None
        },
        "power_source": run.power.source.value,
        "latency_source": run.latency_source.value,
        "window_s": [float(run.window_start_s), float(run.window_end_s)],
    }
    if run.ended_early is not None:
        header["ended_early"] = [run.ended_early.reason, run.ended_early.missed]
    if run.invalid is not None:
        header["invalid"] = redacted(run.invalid)
    if run.preemptions is not None:
        header["preemptions"] = run.preemptions
    if run.output is not Output.TEXT:
        header["output"] = run.output.value
    text = json.dumps(header).encode()
    body = b"".join([len(text).to_bytes(4, "little"), text, *map(_pack, columns.values())])
    return bytes([FORMAT_VERSION]) + zlib.compress(body, 6)


def decode(encoded: bytes) -> RawRun:
    """Return the run that was given to `encode`.

    Raises `PreflightError` for a newer format and `OperatorNeededError` for damaged bytes.
    """
    if not isinstance(encoded, bytes):  # SQLite takes a text for a column of bytes
        raise OperatorNeededError(
            "raw records are damaged (a text); the metrics are kept apart and still hold"
        )
    if encoded[:1] != bytes([FORMAT_VERSION]):
        raise PreflightError(
            f"raw records have format {encoded[:1].hex() or 'none'}, this tuner reads "
            f"{FORMAT_VERSION:02x}; upgrade tuner"
        )
    try:
        body = _unfolded(encoded[1:])
        end = 4 + int.from_bytes(body[:4], "little")
        return _run(json.loads(body[4:end]), body[end:])
    except _DAMAGE as error:
        raise OperatorNeededError(
            f"raw records are damaged ({error}); the metrics are kept apart and still hold"
        ) from error


def _unfolded(packed: bytes) -> bytearray:
    """Return what zlib packed; raises `zlib.error`, and `ValueError` beyond `MOST_BYTES`."""
    unfold = zlib.decompressobj()
    body = bytearray()
    while not unfold.eof:
        piece = unfold.decompress(packed, _STEP_BYTES)
        packed = unfold.unconsumed_tail
        body += piece
        if len(body) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
        if not piece and not packed:
            raise ValueError("cut off")
    return body


def _columns(run: RawRun) -> dict[str, NDArray[np.int64]]:
    requests = run.requests
    tokens = [_floats(r.token_times_s) for r in requests]
    return {
        "request_id": _integers(r.request_id for r in requests),
        "prompt_tokens": _integers(r.prompt_tokens for r in requests),
        "output_tokens": _integers(r.output_tokens for r in requests),
        "state": _integers(_STATES.index(r.state) for r in requests),
        "token_count": _integers(len(t) for t in tokens),
        "scheduled_s": _bits([r.scheduled_s for r in requests]),
        "sent_s": _bits([r.sent_s for r in requests]),
        "ended_s": _bits([r.ended_s for r in requests]),
        "token_times_s": _bits(np.concatenate(tokens) if tokens else []),
        "power_times_s": _bits(run.power.times_s),
        "power_w": _bits(run.power.power_w),
        "energy_j": _bits(run.power.energy_j),
        "server_times_s": _bits(run.server.times_s),
        "running": _bits(run.server.running),
        "waiting": _bits(run.server.waiting),
        **_units([r.units for r in requests]),
        **_clocks(run.power.sm_clock_mhz),
        **_drafts(run.server.drafts),
    }


def _units(units: list[float | None]) -> dict[str, NDArray[np.int64]]:
    """Return an optional column, as `_clocks` does; NaN is a request without units."""
    if all(one is None for one in units):
        return {}
    return {"units": _bits([np.nan if one is None else one for one in units])}


def _clocks(sm_clock_mhz: FloatArray | None) -> dict[str, NDArray[np.int64]]:
    """Return an optional column; readers of this format accept its absence."""
    return {} if sm_clock_mhz is None else {"sm_clock_mhz": _bits(sm_clock_mhz)}


def _drafts(counts: DraftCounts | None) -> dict[str, NDArray[np.int64]]:
    """Return optional columns, as `_clocks` does."""
    if counts is None:
        return {}
    return {
        "drafts": _bits(counts.drafts),
        "drafted": _bits(counts.drafted),
        "accepted": _bits(counts.accepted),
        **{f"accepted_at_{i}": _bits(column) for i, column in enumerate(counts.accepted_at)},
    }


def _run(header: dict[str, Any], body: bytearray) -> RawRun:
    columns: dict[str, NDArray[np.int64]] = {}
    at = 0
    for name, length in header["columns"]:
        columns[name] = _unpack(body[at : at + 8 * length], length)
        at += 8 * length
    floats = {name: column.view(np.float64) for name, column in columns.items()}
    return RawRun(
        requests=_requests(columns, floats, header["errors"]),
        power=PowerTimeline(
            floats["power_times_s"],
            floats["power_w"],
            floats["energy_j"],
            Source(header["power_source"]),
            floats.get("sm_clock_mhz"),
        ),
        server=ServerTimeline(
            floats["server_times_s"],
            floats["running"],
            floats["waiting"],
            _draft_counts(floats) if "drafts" in floats else None,
        ),
        window_start_s=header["window_s"][0],
        window_end_s=header["window_s"][1],
        latency_source=Source(header["latency_source"]),
        ended_early=EarlyEnd(*header["ended_early"]) if "ended_early" in header else None,
        invalid=header.get("invalid"),
        preemptions=header.get("preemptions"),
        output=Output(header.get("output", Output.TEXT)),
    )


def _draft_counts(floats: dict[str, FloatArray]) -> DraftCounts:
    positions = takewhile(floats.__contains__, (f"accepted_at_{i}" for i in count()))
    return DraftCounts(
        floats["drafts"],
        floats["drafted"],
        floats["accepted"],
        tuple(floats[name] for name in positions),
    )


def _requests(
    columns: dict[str, NDArray[np.int64]], floats: dict[str, FloatArray], errors: dict[str, str]
) -> tuple[RequestRecord, ...]:
    ends = np.cumsum(columns["token_count"])
    tokens = np.split(floats["token_times_s"], ends[:-1]) if len(ends) else []
    return tuple(
        RequestRecord(
            request_id=int(columns["request_id"][i]),
            prompt_tokens=int(columns["prompt_tokens"][i]),
            output_tokens=int(columns["output_tokens"][i]),
            scheduled_s=float(floats["scheduled_s"][i]),
            sent_s=float(floats["sent_s"][i]),
            token_times_s=times,
            ended_s=float(floats["ended_s"][i]),
            state=_STATES[int(columns["state"][i])],
            error=errors.get(str(i)),
            units=_unit(floats.get("units"), i),
        )
        for i, times in enumerate(tokens)
    )


def _unit(units: FloatArray | None, place: int) -> float | None:
    return None if units is None or np.isnan(units[place]) else float(units[place])


def _integers(values: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(values, dtype=np.int64)


def _floats(values: ArrayLike) -> FloatArray:
    return np.ascontiguousarray(values, dtype="<f8")


def _bits(values: ArrayLike) -> NDArray[np.int64]:
    return _floats(values).view("<i8")


def _pack(column: NDArray[np.int64]) -> bytes:
    steps = np.diff(column, prepend=np.int64(0)).astype("<i8")  # wraps around, as _unpack does
    return steps.view(np.uint8).reshape(-1, 8).T.tobytes()


def _unpack(packed: bytes | bytearray, length: int) -> NDArray[np.int64]:
    rows = np.frombuffer(packed, dtype=np.uint8).reshape(8, length)
    steps = np.ascontiguousarray(rows.T).view("<i8").reshape(length)
    return np.cumsum(steps, dtype=np.int64)
