"""What the requests of a window made: tokens, images or seconds of video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tuner.measurement.requests.latencies import finished_within
from tuner.records import FloatArray, RawRun, RequestRecord, RequestState


def whole_answers(run: RawRun) -> RawRun:
    """Return a run whose window begins and ends as an image or a video arrives; text as it is.

    It is empty where no two of them arrived one after another.

    Tokens come one by one, so that a window may be cut anywhere. An image comes after seconds of
    work, several of them at once, and a window cut anywhere would count work that it did not see.
    What arrives with the first one belongs to the time before.
    """
    if run.output.is_text:
        return run
    ends_s = _ends_s(run.requests)
    inside = ends_s[(ends_s >= run.window_start_s) & (ends_s <= run.window_end_s)]
    if not inside.size:
        return replace(run, window_start_s=run.window_end_s)
    return replace(run, window_start_s=float(inside[0]), window_end_s=float(inside[-1]))


def made_within(run: RawRun, start_s: float, end_s: float) -> float:
    """Return how much arrived in (start, end]: tokens, or the units of whole answers."""
    if run.output.is_text:
        times_s = np.concatenate([np.empty(0), *(r.token_times_s for r in run.requests)])
        return int(np.count_nonzero((times_s > start_s) & (times_s <= end_s)))
    return sum(units_of(r) for r in finished_within(run.requests, start_s, end_s))


def units_of(record: RequestRecord) -> float:
    """Return how much a whole answer has: tokens, images or seconds of video."""
    return float(record.output_tokens) if record.units is None else record.units


def made_per_batch(run: RawRun, edges_s: FloatArray) -> FloatArray:
    """Return how much was made between each two of the edges (B + 1,); shape (B,).

    A token counts where it arrives. The work for an image or a video is spread evenly over the time
    since the answer before it.
    """
    if run.output.is_text:
        times_s = np.concatenate([np.empty(0), *(r.token_times_s for r in run.requests)])
        times_s = times_s[(times_s > edges_s[0]) & (times_s <= edges_s[-1])]
        batch = np.clip(np.searchsorted(edges_s, times_s, side="left") - 1, 0, edges_s.size - 2)
        return np.bincount(batch, minlength=edges_s.size - 1).astype(np.float64)
    done = sorted(
        (float(r.token_times_s[-1]), units_of(r))
        for r in run.requests
        if r.state is RequestState.DONE
    )
    ends_s, units = np.array(done, dtype=np.float64).reshape(-1, 2).T
    is_last = np.append(ends_s[1:] > ends_s[:-1], ends_s.size > 0)  # of those that came at once
    return np.diff(np.interp(edges_s, ends_s[is_last], np.cumsum(units)[is_last]))


def _ends_s(requests: Sequence[RequestRecord]) -> FloatArray:
    ends = [float(r.token_times_s[-1]) for r in requests if r.state is RequestState.DONE]
    return np.sort(np.array(ends, dtype=np.float64))
