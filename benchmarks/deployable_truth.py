"""The truth of a configuration on the emulator: many stretches of traffic that no study used."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from deployable_scenarios import Scenario

from tuner.catalog.gpu import load_gpu
from tuner.catalog.model import load_model
from tuner.configuration import Configuration
from tuner.emulator.refusal import LaunchRefusedError
from tuner.emulator.virtual import simulate
from tuner.evaluation.factory import fixed_configuration, measurement_plan
from tuner.load.workload import load_workload
from tuner.measurement.steady_window import SteadyWindow, WindowPlan
from tuner.records import Failure
from tuner.slo import meets_all
from tuner.spec.search_space import SearchSpace
from tuner.spec.study import StudySpec

ENERGY = "energy_per_output_token_j"
SHORT_S, LONG_S = 180.0, 3600.0
FIRST_SHORT, FIRST_LONG = 50_000, 60_000  # far from the stretches of a confirmation
SHORT, LONG = 20, 3
_MOST_MISSES = SHORT // 20
_SHOWN = ("p99_tpot_ms", "p99_ttft_ms", ENERGY)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one window showed: its metrics, none if it failed, and whether every SLO was met."""

    metrics: Mapping[str, float]
    met: bool


class Truth:
    """Measures configurations of one scenario without noise; keeps what it measured in a file."""

    def __init__(self, scenario: Scenario, space: SearchSpace, spec: StudySpec, folder: Path):
        fixed = fixed_configuration(space)
        self._slos = spec.slos
        self._model, self._gpu = load_model(spec.model), load_gpu(str(spec.emulate))
        self._plan = measurement_plan(spec, load_workload(spec.workload), fixed)
        said = json.dumps([scenario.options, scenario.fixed], sort_keys=True)
        name = hashlib.sha256(said.encode()).hexdigest()[:12]
        self._path = folder / f"truth-{scenario.name}-{name}.json"
        self._known: dict[str, dict[str, float]] = {}
        if self._path.exists():
            self._known = json.loads(self._path.read_text())

    def window(self, configuration: Configuration, number: int) -> Outcome:
        """Return one window on unseen stretch `number`; from 60,000 on it lasts an hour."""
        key = f"{number} {json.dumps(configuration.to_json(), sort_keys=True)}"
        if key not in self._known:
            self._known[key] = self._measured(configuration, number)
        metrics = self._known[key]
        return Outcome(metrics, meets_all(metrics, self._slos))

    def windows(self, configuration: Configuration, *, hours: bool) -> list[Outcome]:
        """Return all windows of 180 s, or those of an hour."""
        first, count = (FIRST_LONG, LONG) if hours else (FIRST_SHORT, SHORT)
        found = [self.window(configuration, first + n) for n in range(count)]
        self.save()
        return found

    def holds(self, configuration: Configuration) -> bool:
        """Say whether 95 % of the windows of 180 s meet every SLO; ends at the second miss."""
        misses = 0
        for number in range(SHORT):
            misses += not self.window(configuration, FIRST_SHORT + number).met
            if misses > _MOST_MISSES:
                return False
        return True

    def log_ratio(self, ours: Configuration, theirs: Configuration) -> float:
        """Return the mean log ratio of the energies per token on the windows of 180 s."""
        ratios = []
        for number in range(FIRST_SHORT, FIRST_SHORT + SHORT):
            a, b = (self.window(c, number).metrics.get(ENERGY) for c in (ours, theirs))
            if a and b:
                ratios.append(math.log(a / b))
        return statistics.fmean(ratios) if ratios else math.nan

    def save(self) -> None:
        """Write what was measured, so that a run that is stopped goes on from here."""
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._known))
        part.replace(self._path)

    def _measured(self, configuration: Configuration, number: int) -> dict[str, float]:
        plan = self._plan
        length_s = LONG_S if number >= FIRST_LONG else SHORT_S
        begins_s = (plan.unseen_window or plan.window).latest_start_s
        window = replace(
            WindowPlan(window_s=length_s, warmup_limit_s=begins_s), begins_after_s=begins_s
        )
        try:
            raw = simulate(
                self._model,
                self._gpu,
                plan.full(configuration),
                plan.workload.unseen(number).requests(),
                plan.load,
                SteadyWindow(window),
                seed=number,
                noise=False,
            )
        except LaunchRefusedError:
            return {}
        result = plan.reduce(raw)
        if isinstance(result, Failure):
            return {}
        return {name: result.metrics[name] for name in _SHOWN if name in result.metrics}
