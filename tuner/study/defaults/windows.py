"""Default windows: longer where answers are, so that the load is steady in them.

Half a window passes before it begins. Answers of a reasoning model last minutes: after 90 s most of
the requests that a server will have in flight are still to come, and each token comes sooner than
it will.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.load.summary import output_lengths
from tuner.load.workload import Workload
from tuner.metrics import Output
from tuner.spec.study import StudySpec
from tuner.study.defaults.answer_times import fills_in_s

_FILLED = 0.9  # at the SLO's bound, which most answers are faster than
_LONGEST_S = 600.0
_WHOLE_S = 10.0
_ANSWERS = 5.0
_LENGTHS = {"min_window_s", "max_window_s"}


@dataclass(frozen=True, slots=True)
class FittedWindows:
    """The spec with windows that fit its answers; `reason` explains them, None if they stay."""

    spec: StudySpec
    reason: str | None


def fitted_windows(spec: StudySpec, workload: Workload) -> FittedWindows:
    """Return the spec with longer windows if its answers need them, and the user set none.

    A window is twice as long as it takes until nine tenths of the requests in flight are there, if
    every token takes as long as the SLO on TPOT allows; ten minutes at most. One of the
    confirmation holds five answers one after another: near its capacity a server goes on filling.
    """
    bounds_ms = [slo.bound for slo in spec.slos if slo.metric.endswith("_tpot_ms")]
    load = spec.load or workload.default_load
    is_open = spec.request_rate_share is not None or load.request_rate is not None
    is_text = workload.spec.output is Output.TEXT
    if not (bounds_ms and is_open and is_text) or _LENGTHS & spec.model_fields_set:
        return FittedWindows(spec, None)
    tokens = output_lengths(workload)
    fills_s = fills_in_s(tokens, max(bounds_ms), _FILLED)
    length_s = min(_WHOLE_S * math.ceil(2.0 * fills_s / _WHOLE_S), _LONGEST_S)
    if length_s <= spec.max_window_s:
        return FittedWindows(spec, None)
    answers_s = _ANSWERS * float(tokens.mean()) * max(bounds_ms) / 1e3
    confirm_s = min(_WHOLE_S * math.ceil(max(answers_s, length_s) / _WHOLE_S), _LONGEST_S)
    lengths = {"max_window_s": length_s}
    if "confirm_window_s" not in spec.model_fields_set:
        lengths["confirm_window_s"] = confirm_s
    reason = (
        f"windows last {length_s:.0f} s, not {spec.max_window_s:.0f}, because of the long answers: "
        f"at {max(bounds_ms):g} ms a token the load grows for {fills_s:.0f} s (--max-window-s sets "
        "another length)"
    )
    return FittedWindows(spec.model_copy(update=lengths), reason)
