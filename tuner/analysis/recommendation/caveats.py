"""Caveats: warnings that a user must read before deploying a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.analysis.confirmed_front import ConfirmedFront, confirmation_notes
from tuner.analysis.outcomes import emulated, ended_early, energy_j, measured, meets_slo
from tuner.errors import OperatorNeededError
from tuner.measurement.statistics.unseen_traffic import LEAST_WINDOWS, SloVerdict
from tuner.servers.registry import flag_rules
from tuner.slo import Slo
from tuner.spec.stored import StoredSpec
from tuner.store import Store
from tuner.store.rows import StudyIdentity, TrialRow, TrialState

_BY_OWN_SLO = ("goodput_req_s", "slo_attainment")
# Boards control power to a few per cent: peaks this near a limit may have been cut by it.
_BINDS_FROM = 0.95


def caveats(
    store: Store,
    study: StudyIdentity,
    confirmed: ConfirmedFront,
    searched: Sequence[TrialRow],
    best: TrialRow,
) -> list[str]:
    """Return the warnings, the most important first; `best` is the trial to be deployed.

    `searched` are the trials with the windows of the search, as if one card had measured them.
    """
    slos = confirmed.slos
    found = [
        f"{what} is emulated, not measured" for what in emulated(study, measured(confirmed.trials))
    ]
    found += _of_choice(confirmed, best)
    found += _of_unknown(confirmed)
    found += confirmation_notes(confirmed)
    found += [w for t in confirmed.front if (w := confirmed.outputs_warning(t)) is not None]
    if not study.is_finished:
        running = sum(t.state is TrialState.RUNNING for t in confirmed.trials)
        found.append(
            f"the study is not finished ({len(confirmed.trials) - running} trials ended, "
            f"{running} running); go on with `tuner resume {study.name}`"
        )
    if any(slo.metric in _BY_OWN_SLO and str(slo) not in study.slos for slo in slos):
        found.append(f"goodput was counted by the SLO of the study: {', '.join(study.slos)}")
    found += _of_default(confirmed.baseline, slos, best)
    found += _of_limits(store, confirmed, searched, best)
    return found + list(best.warnings)


def _of_choice(confirmed: ConfirmedFront, best: TrialRow) -> list[str]:
    """Return the reasons that make this trial a doubtful choice."""
    found = []
    if not meets_slo(best, confirmed.slos):
        wanted = ", ".join(map(str, confirmed.slos))
        found.append(f"trial {best.number} does not meet the SLO ({wanted})")
    if best.number in confirmed.dropped:
        found.append(f"trial {best.number} was taken off the front when it was measured again")
    known = confirmed.confirmations.get(best.number)
    if confirmed.is_confirmed and (known is None or not known.is_confirmed):
        found.append(f"trial {best.number} is not confirmed: its figures are of a single window")
    shown = confirmed.summary(best)
    if shown.tied_with_default:
        found.append(
            f"tied with the default: a saving of {shown.saving_percent:.1f} % is within the noise"
        )
    return found


def _of_unknown(confirmed: ConfirmedFront) -> list[str]:
    """Return the caveat that trials which ended early may meet another SLO."""
    study, ended = confirmed.study, ended_early(confirmed.trials)
    bounds = {slo.metric: slo.bound for slo in confirmed.slos}
    own = [Slo.parse(text) for text in study.slos]
    is_looser = any(s.metric not in bounds or s.violation(bounds[s.metric]) > 0.0 for s in own)
    if not is_looser or not ended:
        return []
    given = "".join(f" --slo '{slo}'" for slo in confirmed.slos)
    many = "1 trial was" if len(ended) == 1 else f"{len(ended)} trials were"
    return [
        f"{many} ended early for missing the study's own SLO ({', '.join(study.slos)}), and may be "
        f"what this one asks for; `tuner run --from-study {study.name}{given}` measures again"
    ]


def _of_default(baseline: TrialRow | None, slos: Sequence[Slo], best: TrialRow) -> list[str]:
    if baseline is None or meets_slo(baseline, slos) is None:
        reason = "" if baseline is None or baseline.failure is None else baseline.failure.reason
        return [f"the default was not measured{': ' if reason else ''}{reason}"]
    found = []
    if not meets_slo(baseline, slos):
        found.append("the default itself does not meet the SLO")
    if baseline.configuration.offered != best.configuration.offered:
        found.append("the default was measured at another load than this configuration")
    return found


def _of_limits(
    store: Store, confirmed: ConfirmedFront, searched: Sequence[TrialRow], best: TrialRow
) -> list[str]:
    """Return which limits made no difference: the SLO's bounds, and the power limit of one GPU.

    Of several GPUs only the sum of their power is kept: one may be at its limit while others wait.
    What their own samples said of it is a warning of the trial's window.
    """
    found = []
    if _never_bound(confirmed, searched, best):
        found.append("the SLO does not bind: nothing that misses it was seen to use less energy")
    limit_w = best.configuration.device.get("power_limit_w")
    whole = best.configuration.with_fixed(StoredSpec.of(confirmed.study).fixed)
    if limit_w is None or flag_rules().gpus_used(whole) > 1:
        return found
    try:
        peak_w = _peak_power_w(store, confirmed, best)
    except OperatorNeededError as error:  # damaged raw records; the metrics still hold
        return [*found, str(error)]
    if peak_w is not None and peak_w < _BINDS_FROM * float(limit_w):
        found.append(
            f"the power limit of {limit_w:g} W never bound: the highest sample was {peak_w:.0f} W"
        )
    return found


def _never_bound(confirmed: ConfirmedFront, searched: Sequence[TrialRow], best: TrialRow) -> bool:
    """Say whether all that misses the SLO, or may, used more energy in its window of the search.

    Those windows had the same traffic; that of the repeats was another. Of a window that ended
    early it is the energy of what there was of it.
    """
    ours_j = energy_j(next((t for t in searched if t.number == best.number), None))
    if not confirmed.slos or not meets_slo(best, confirmed.slos) or ours_j is None:
        return False
    ended = {t.number for t in ended_early(searched)}
    doubtful = [t for t in searched if t.number in ended or not _holds(confirmed, t)]
    return all(theirs_j is None or theirs_j >= ours_j for theirs_j in map(energy_j, doubtful))


def _holds(confirmed: ConfirmedFront, trial: TrialRow) -> bool:
    """Say whether a trial met the SLO in the search, and in its repeats if there are enough."""
    found = confirmed.confirmations.get(trial.number)
    is_known = found is not None and found.repeats >= LEAST_WINDOWS
    return bool(meets_slo(trial, confirmed.slos)) and (
        found is None or found.slo is SloVerdict.MET or not (is_known or found.is_dropped)
    )


def _peak_power_w(store: Store, confirmed: ConfirmedFront, trial: TrialRow) -> float | None:
    """Return the highest sample of the window, W; None if none is kept."""
    run = store.raw_run(confirmed.study.name, trial.number)
    if run is None:
        return None
    inside = (run.power.times_s >= run.window_start_s) & (run.power.times_s <= run.window_end_s)
    return float(run.power.power_w[inside].max()) if inside.any() else None
