"""What the final checks say, in sentences and as JSON: headroom, stress, idle power, pay-back."""

from __future__ import annotations

from typing import Any

from tuner.analysis.deployment.checks import DeploymentChecks, Stress
from tuner.analysis.deployment.headroom import Headroom
from tuner.analysis.recommendation.recommend import Recommendation
from tuner.report.labels import UNKNOWN
from tuner.report.sentences.thinking_text import thinking_lines

_J_PER_KWH = 3.6e6
_A_WINDOW, _ALLOWED = 0.01, 0.05  # of 100 windows


def check_lines(r: Recommendation) -> list[str]:
    """Return a sentence for each check that was made; none for a study without them."""
    ours = r.checks_of(r.best)
    lines = [headroom_sentence(r), None if ours.stress is None else _stress(ours.stress)]
    if ours.idle_power_w is not None:
        lines.append(f"idle: {ours.idle_power_w:.0f} W, loaded and without requests")
    if r.pays_after_h is not None and r.night_energy_j is not None:
        lines.append(
            f"the study used about {r.night_energy_j / _J_PER_KWH:.2g} kWh itself, saved again "
            f"after {r.pays_after_h:.2g} h at this load"
        )
    return [*(line for line in lines if line is not None), *thinking_lines(r)]


def slo_sentence(r: Recommendation) -> str | None:
    """Return whether the SLO is met on other traffic, and the chance that says so; None if unknown.

    The verdict and the chance are of the same level: at most 5 of 100 windows may miss it.
    """
    shown = r.summary_of(r.best)
    what = {"met": "every SLO is met", "uncertain": "unsure whether the SLO is met"}
    if not r.slos or not shown.confirmed or shown.slo_verdict not in what:
        return None
    said, chance = what[shown.slo_verdict], shown.slo_miss_chance
    if chance is None:
        return said
    if shown.slo_verdict == "uncertain" and chance <= _ALLOWED:
        return f"{said}: {shown.repeats} windows are too few to say"
    expected = f"{100.0 * chance:.2g}" if chance >= _A_WINDOW else "fewer than 1"
    of_all = "of 100 windows on other traffic are expected to miss it (5 are allowed)"
    return f"{said}: {expected} {of_all}"


def headroom_sentence(r: Recommendation) -> str | None:
    """Return how much load the configuration takes beside the default; None if not measured.

    What is saved at the cost of capacity is said together with it.
    """
    ours = r.checks_of(r.best)
    if ours.headroom is None:
        return None
    unit = "requests at once" if ours.is_closed_loop else "requests/s"
    theirs = _theirs(r)
    whole = ours.is_closed_loop
    if theirs is None:
        return f"{_holds(ours.headroom, whole=whole)} {unit}"
    saving = r.summary_of(r.best).saving_percent
    less = _is_less(ours.headroom, theirs)
    if less and saving is not None and saving > 0.0:
        return (
            f"saves {saving:.1f} %, and serves {_up_to(ours.headroom, whole=whole)} instead of "
            f"{_up_to(theirs, whole=whole).removeprefix('up to ')} {unit}"
        )
    default = _holds(theirs, whole=whole).removeprefix("holds ")
    return f"{_holds(ours.headroom, whole=whole)} {unit}, the default {default}"


def headroom_range(found: Headroom, *, whole: bool) -> str:
    """Return the load that is held, as short as a tile: `6.1`, `≥ 6.1`, `< 6.1` or `6.1 to 8`."""
    if found.holds is None:
        return f"< {_load(found.misses)}"
    if found.misses is None:
        return f"\u2265 {_load(found.holds)}"
    if found.is_closed(whole=whole):
        return _load(found.holds)
    return f"{_load(found.holds)} to {_load(found.misses)}"


def has_less_headroom(r: Recommendation) -> bool:
    """Say whether the configuration takes clearly less load than the default."""
    ours, theirs = r.checks_of(r.best).headroom, _theirs(r)
    return ours is not None and theirs is not None and _is_less(ours, theirs)


def checks_json(r: Recommendation) -> dict[str, Any]:
    """Return the checks of the recommendation and of the default, unrounded."""
    ours = r.checks_of(r.best)
    theirs = None if r.baseline is None else r.checks_of(r.baseline)
    stress = ours.stress
    return {
        "headroom": _headroom_json(ours),
        "default_headroom": None if theirs is None else _headroom_json(theirs),
        "stress": None
        if stress is None
        else {
            "requests": stress.requests,
            "most_running": stress.most_running,
            "duration_s": stress.duration_s,
            "preemptions": stress.preemptions,
            "failure": stress.failure,
        },
        "idle_power_w": ours.idle_power_w,
        "study_energy_kwh": None if r.night_energy_j is None else r.night_energy_j / _J_PER_KWH,
        "pays_after_h": r.pays_after_h,
    }


def _theirs(r: Recommendation) -> Headroom | None:
    return None if r.baseline is None or r.is_default else r.checks_of(r.baseline).headroom


def _is_less(ours: Headroom, theirs: Headroom) -> bool:
    """Say whether a load that the default holds is surely too much."""
    if theirs.holds is None or ours.misses is None:
        return False
    return ours.misses <= theirs.holds


def _load(value: float | None) -> str:
    """Return a load to three digits, without an exponent."""
    if value is None:
        return UNKNOWN
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 1000.0 else f"{rounded:g}"


def _holds(found: Headroom, *, whole: bool) -> str:
    """Return `holds to 6.1`; without a near end on one side that is said."""
    if found.holds is None:
        return f"misses the SLO even at {_load(found.misses)}"
    return f"holds to {_up_to(found, whole=whole).removeprefix('up to ')}"


def _up_to(found: Headroom, *, whole: bool) -> str:
    """Return `up to 6.1`; another SLO than the study's was not searched for its own limit."""
    if found.holds is None:
        return f"less than {_load(found.misses)}"
    if found.misses is None:
        return f"at least {_load(found.holds)}"
    if found.is_closed(whole=whole):
        return f"up to {_load(found.holds)}"
    return f"between {_load(found.holds)} and {_load(found.misses)}"


def _stress(stress: Stress) -> str:
    if stress.failure is not None:
        return f"stress: {stress.failure}"
    running = "" if stress.most_running is None else f", {stress.most_running:.0f} at once"
    preempted = "" if stress.preemptions is None else f", {stress.preemptions:.0f} preemptions"
    return (
        f"stress: {stress.requests:,} of the longest requests{running}, for "
        f"{stress.duration_s:.0f} s: none failed{preempted}"
    )


def _headroom_json(checks: DeploymentChecks) -> dict[str, Any] | None:
    found = checks.headroom
    if found is None:
        return None
    unit = "concurrency" if checks.is_closed_loop else "request_rate"
    return {
        "unit": unit,
        "holds": found.holds,
        "misses": found.misses,
        "within_5_percent": found.is_closed(whole=checks.is_closed_loop),
    }
