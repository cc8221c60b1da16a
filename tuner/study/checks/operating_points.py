"""Operating points: what the deployable configurations use and give at shares of their capacity.

A plan for a day is made of them. They are probes, and a run that was killed goes on after those
that are stored. The capacity is the highest load at which a configuration met its SLOs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tuner.analysis.deployment.checks import deployment_checks, is_machines_fault
from tuner.analysis.deployment.headroom import Headroom
from tuner.analysis.recommendation.recommend import Recommendation, recommend
from tuner.errors import NoFeasibleConfigurationError
from tuner.evaluation.headroom import headroom_run
from tuner.records import Load
from tuner.store import ProbeKind, TrialRow
from tuner.study.checks.final_checks import FinalChecks
from tuner.study.checks.prober import Evaluate, Prober

_DIGITS = 4


class OperatingPoints:
    """Measures the recommendation, the baseline, and the rest of the confirmed front."""

    def __init__(self, prober: Prober, checks: FinalChecks) -> None:
        self._prober = prober
        self._checks = checks

    async def run(self) -> None:
        """Measure what is not measured yet, as far as the hours last."""
        if not self._prober.spec.loads:
            return
        try:
            found = recommend(self._prober.store, study=self._prober.name)
        except NoFeasibleConfigurationError:
            return
        traffic = self._checks.hardest_stretch(found.best)
        trials = list(_deployable(found))
        for trial in trials:
            await self._checks.idle(trial)
            await self._checks.headroom(trial, traffic)
            for load in self._loads(trial):
                await self._load(trial, traffic, load)
            await self._switching(trial)
        if missing := [t for t in trials if not self._is_complete(t)]:
            self._tell_of(missing)

    def _loads(self, trial: TrialRow) -> list[Load]:
        """Return the loads that are asked for; none where the capacity is not known."""
        headroom = self._headroom(trial)
        if headroom is None or headroom.holds is None:
            return []
        rates = [share * headroom.holds for share in self._prober.spec.loads]
        return [Load(request_rate=float(f"{rate:.{_DIGITS}g}")) for rate in rates]

    def _headroom(self, trial: TrialRow) -> Headroom | None:
        prober = self._prober
        return deployment_checks(
            prober.rows(), trial.number, prober.spec.slos, prober.plan.load
        ).headroom

    def _is_complete(self, trial: TrialRow) -> bool:
        """Say whether nothing is left to measure of a trial."""
        loads = self._loads(trial)
        is_known = all(self._is_known(trial, ProbeKind.LOAD, load) for load in loads)
        return (
            self._headroom(trial) is not None
            and is_known
            and self._is_known(trial, ProbeKind.SWITCHING, None)
        )

    def _tell_of(self, missing: Sequence[TrialRow]) -> None:
        """Say which trials lack operating points, since a plan needs them, and how to get them."""
        prober = self._prober
        names = ["the default" if t.baseline else f"trial {t.number}" for t in missing]
        shares = ",".join(f"{share:g}x" for share in prober.spec.loads)
        prober.tell(
            "no_points",
            f"operating points are missing of {', '.join(names)}; "
            f"`tuner resume {prober.name} --loads {shares}` goes on with them",
        )

    async def _load(self, trial: TrialRow, traffic: int, load: Load) -> None:
        run = headroom_run(self._prober.plan, load, traffic, trial.configuration)
        await self._measure(
            trial,
            ProbeKind.LOAD,
            load,
            lambda repeat: self._prober.evaluator.probe(trial.configuration, repeat, run),
            traffic,
        )

    async def _switching(self, trial: TrialRow) -> None:
        await self._measure(
            trial,
            ProbeKind.SWITCHING,
            None,
            lambda repeat: self._prober.evaluator.switching(trial.configuration, repeat),
        )

    async def _measure(
        self,
        trial: TrialRow,
        kind: ProbeKind,
        load: Load | None,
        evaluate: Evaluate,
        traffic: int | None = None,
    ) -> None:
        """Measure it unless it is stored, again after a fault of the machine, while time lasts."""
        while not self._is_known(trial, kind, load):
            if await self._prober.measure(trial, kind, load, evaluate, traffic) is None:
                return

    def _is_known(self, trial: TrialRow, kind: ProbeKind, load: Load | None) -> bool:
        for row in self._prober.rows():
            result = row.measurement or row.failure
            is_same = row.trial == trial.number and row.kind is kind and row.load == load
            if is_same and result is not None and not is_machines_fault(result):
                return True
        return False


def _deployable(found: Recommendation) -> Iterator[TrialRow]:
    """Yield the recommendation first; a configuration that sets its own load is no deployment."""
    baseline = () if found.baseline is None or found.is_default else (found.baseline,)
    known: dict[int, TrialRow] = {}
    for trial in (found.best, *baseline, *found.alternatives):
        if trial.number not in found.confirmed.unfit and not trial.configuration.offered:
            known.setdefault(trial.number, trial)
    yield from known.values()
