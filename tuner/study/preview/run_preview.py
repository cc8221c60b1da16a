"""Run preview: what a study would change, how many evaluations fit, when it ends; starts nothing.

How long a launch and an evaluation take is the median of the store's studies of the same model,
else an assumption, labelled so. Without a median an evaluation lies between two bounds: one
with a launch and the longest window, and one without a launch and the shortest window.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from tuner.errors import TunerError
from tuner.load.workload import load_workload
from tuner.measurement.statistics.unseen_traffic import LEAST_WINDOWS
from tuner.records import Load
from tuner.spec.device_ranges import gpus_for, ranges_for
from tuner.spec.knobs import Choice, Knob, Variants
from tuner.spec.search_space import SearchSpace, load_space
from tuner.spec.study import StudySpec
from tuner.store import Store
from tuner.study.confirmation.plan import (
    AIM_REPEATS,
    AIM_SHARE_OF_HOURS,
    SHARE_OF_HOURS,
    most_repeats,
)
from tuner.study.default_space import named_space
from tuner.study.defaults.windows import fitted_windows
from tuner.study.loop import SHARE_TO_SIMPLIFY
from tuner.study.proposals.stopping import LEAST_EVALUATIONS

ASSUMED_LAUNCH_S = 90.0  # an 8B model with CUDA graphs, files in the page cache
_DEVICE = "device"
_SPREAD = 0.2  # of a median evaluation: between studies of one model


@dataclass(frozen=True, slots=True)
class KnobPreview:
    """A knob, its kind (`launch`, `live`, `device` or `load`) and its range in words."""

    name: str
    kind: str
    range: str


@dataclass(frozen=True, slots=True)
class RunPreview:
    """What a run would do.

    Attributes:
        load: None leaves it to a search over loads.
        device_knobs: settings of real GPUs that would be changed, and put back.
        launch_s: of one launch; `launch_is_measured` says whether it is more than an assumption.
        window_s: the shortest and the longest window of the search, s.
        window_reason: why they are longer than usual, None if they are not.
        confirm_window_s: of a repeat on traffic not seen, s; None without a confirmation.
        evaluations: the fewest and the most of the search.
        most_repeats: on top of a budget in trials; None for one in hours, which they are part of.
        kept_s: the time of the hours kept for confirmation and checks, at most.
        enough_hours: so many would confirm a recommendation, if these are too few; else None.
        lasts_s: how long it takes at least and at most, s; virtual on the virtual clock.
    """

    spec: StudySpec
    space: str
    knobs: tuple[KnobPreview, ...]
    load: Load
    gpus: int | None
    device_knobs: tuple[str, ...]
    launch_s: float
    launch_is_measured: bool
    window_s: tuple[float, float]
    window_reason: str | None
    confirm_window_s: float | None
    evaluations: tuple[int, int]
    most_repeats: int | None
    kept_s: float
    enough_hours: float | None
    lasts_s: tuple[float, float]

    @property
    def is_virtual(self) -> bool:
        """Whether it runs on the emulator's virtual clock, on which a night takes minutes."""
        return not self.spec.is_real_time

    def ends_at(self, now: datetime) -> tuple[datetime, datetime]:
        """Return when it ends if it begins at `now`, at the earliest and at the latest."""
        first_s, last_s = self.lasts_s
        return now + timedelta(seconds=first_s), now + timedelta(seconds=last_s)


def preview(spec: StudySpec, store: str) -> RunPreview:
    """Return what a run of `spec` would do. Raises `UsageError` as the run would."""
    workload = load_workload(spec.workload)
    fitted = fitted_windows(named_space(spec), workload)
    spec = fitted.spec
    space = load_space(spec.space, partial(ranges_for, spec))
    known = _history(spec, store)
    load = spec.load or workload.default_load
    plan = spec.window_plan
    shortest_s = plan.window_s if plan.precision is None else plan.precision.min_window_s
    longest_s = plan.window_s if plan.precision is None else plan.precision.max_window_s
    launch_s = ASSUMED_LAUNCH_S if known.launch_s is None else known.launch_s
    is_open_loop = load.request_rate is not None
    each_s = _each_s(spec, is_open_loop, known, (shortest_s, longest_s))
    kept_s = _kept_s(spec)
    repeats = most_repeats(spec.trials or 0) if spec.confirm and spec.hours is None else None
    evaluations = _evaluations(spec, each_s, kept_s, launch_s)
    confirm_s = _confirm_s(spec, launch_s, repeats or 0)
    return RunPreview(
        spec=spec,
        space=space.name,
        knobs=tuple(_knob(space, name, knob) for _, name, knob in space.knobs()),
        load=load,
        gpus=gpus_for(spec),
        device_knobs=_changed_on_gpus(spec, space),
        launch_s=launch_s,
        launch_is_measured=known.launch_s is not None,
        window_s=(shortest_s, longest_s),
        window_reason=fitted.reason,
        confirm_window_s=_confirm_window_s(spec, is_open_loop) if spec.confirm else None,
        evaluations=evaluations,
        most_repeats=repeats,
        kept_s=kept_s,
        enough_hours=_enough_hours(spec, launch_s, kept_s),
        lasts_s=_lasts_s(spec, evaluations, each_s, confirm_s),
    )


def _knob(space: SearchSpace, name: str, knob: Knob) -> KnobPreview:
    if isinstance(knob, Choice):
        words = ", ".join(map(str, knob.choices))
    elif isinstance(knob, Variants):
        words = ", ".join(knob.variants)
    else:
        words = f"{knob.low:g} to {knob.high:g}"
    return KnobPreview(name, space.kind(name), words)


def _changed_on_gpus(spec: StudySpec, space: SearchSpace) -> tuple[str, ...]:
    """Return the device knobs that are set on real GPUs."""
    if spec.emulate is not None or not spec.allow_gpu_settings:
        return ()
    return tuple(name for section, name, _ in space.knobs() if section == _DEVICE)


@dataclass(frozen=True, slots=True)
class _History:
    """Medians of the store's studies of a model, s: a launch, and a whole evaluation."""

    launch_s: float | None
    evaluation_s: float | None


def _history(spec: StudySpec, store: str) -> _History:
    """Return the medians for this model, and with the same longest window; None without any."""
    kind = "attached" if spec.base_url else "virtual" if spec.emulate and not spec.live else "live"
    try:
        with Store.open(store, create=False) as opened:
            known = [
                (study.spec_json.get("max_window_s"), trial.timing)
                for study in opened.identities()
                if study.model == spec.model and study.evaluation == kind
                for trial in opened.trials(study.name)
                if trial.timing is not None and trial.measurement is not None
            ]
    except TunerError:  # there is no store yet; the run itself says what is wrong with one
        return _History(None, None)
    launches = [timing.launch_s for _, timing in known if timing.launch_s]
    whole = [timing.elapsed_s for window_s, timing in known if window_s == spec.max_window_s]
    return _History(
        statistics.median(launches) if launches else None,
        statistics.median(whole) if whole else None,
    )


def _each_s(
    spec: StudySpec,
    is_open_loop: bool,
    known: _History,
    window_s: tuple[float, float],
) -> tuple[float, float]:
    """Return how long an evaluation takes at least and at most, s: warm-up, window and launch."""
    if known.evaluation_s is not None:
        return (1.0 - _SPREAD) * known.evaluation_s, (1.0 + _SPREAD) * known.evaluation_s
    shortest_s, longest_s = window_s
    if is_open_loop:  # the windows of one stretch of arrivals; those that miss the SLO end early
        shortest_s = max(shortest_s, 0.5 * longest_s)
    launch_s = ASSUMED_LAUNCH_S if known.launch_s is None else known.launch_s
    launches_s = 0.0 if spec.base_url is not None else launch_s
    return 1.25 * shortest_s, 1.5 * longest_s + launches_s


def _kept_s(spec: StudySpec) -> float:
    if spec.hours is None:
        return 0.0
    confirmed_s = SHARE_OF_HOURS * (spec.budget_s - spec.checks_s) if spec.confirm else 0.0
    return confirmed_s + spec.checks_s


def _enough_hours(spec: StudySpec, launch_s: float, kept_s: float) -> float | None:
    """Return the hours that confirm one member beside the default, None if there are as many."""
    if spec.hours is None or not spec.confirm:
        return None
    each_s = launch_s + 1.5 * spec.confirm_window_plan.window_s
    needed_s = 2 * LEAST_WINDOWS * each_s
    has_s = kept_s - spec.checks_s
    return None if has_s >= needed_s else math.ceil(10.0 * spec.hours * needed_s / has_s) / 10.0


def _evaluations(
    spec: StudySpec, each_s: tuple[float, float], kept_s: float, launch_s: float
) -> tuple[int, int]:
    trials = math.inf if spec.trials is None else spec.trials
    if spec.hours is None:
        return int(trials), int(trials)
    taken_s = kept_s + SHARE_TO_SIMPLIFY * spec.budget_s + launch_s
    if spec.confirm:  # repeats during the search, which tell it how far within the SLO to aim
        each_aim_s = launch_s + 1.5 * spec.confirm_window_plan.window_s
        taken_s += min(AIM_REPEATS * each_aim_s, AIM_SHARE_OF_HOURS * spec.budget_s)
    fewest = (spec.budget_s - taken_s) / each_s[1]
    most = spec.budget_s / each_s[0]
    return max(1, int(min(trials, fewest))), max(1, int(min(trials, most)))


def _confirm_window_s(spec: StudySpec, is_open_loop: bool) -> float:
    return spec.confirm_window_plan.window_s if is_open_loop else spec.max_window_s


def _confirm_s(spec: StudySpec, launch_s: float, repeats: int) -> float:
    """Return how long the repeats of a budget in trials take at most, s; default's included."""
    window_s = spec.confirm_window_plan.window_s
    return repeats * 4.0 / 3.0 * (launch_s + 1.25 * window_s)


def _lasts_s(
    spec: StudySpec, evaluations: tuple[int, int], each_s: tuple[float, float], confirm_s: float
) -> tuple[float, float]:
    if spec.hours is not None:
        if not (spec.stops_when_flat or spec.trials is not None):
            return spec.budget_s, spec.budget_s
        fewest = min(LEAST_EVALUATIONS, evaluations[0]) if spec.stops_when_flat else evaluations[0]
        return min(fewest * each_s[0], spec.budget_s), spec.budget_s
    first_s = evaluations[0] * each_s[0]
    return first_s, evaluations[1] * each_s[1] + confirm_s
