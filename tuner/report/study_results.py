"""A stored study for Python: its recommendation, Pareto front, trials and raw timelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tuner.analysis.confirmed_front import ConfirmedFront, confirmed_front
from tuner.analysis.recommendation.infeasible import nothing_met
from tuner.analysis.recommendation.recommend import Recommendation, recommend
from tuner.analysis.report_data.report_data import ReportData, read_report_data
from tuner.configuration import Configuration
from tuner.records import Failure, RawRun
from tuner.report.frames import frame, repeat_rows, request_rows, trial_rows
from tuner.report.json_forms import recommendation_json
from tuner.slo import Slo
from tuner.spec.stored import spec_of
from tuner.spec.study import StudySpec
from tuner.store import Store
from tuner.store.rows import EventRow, RepeatRow, StudyIdentity, TrialRow, TrialState

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial: its configuration and metrics; of a confirmed one those of its repeats."""

    row: TrialRow = field(repr=False)
    study: str = field(repr=False)
    store_url: str = field(repr=False)  # may hold a password

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.row.number

    @property
    def configuration(self) -> Configuration:
        """The value of each knob; what is left out is vLLM's default."""
        return self.row.configuration

    @property
    def metrics(self) -> Mapping[str, float]:
        """What was measured, by the names of `tuner.metrics`; empty for a failed trial."""
        return {} if self.row.measurement is None else self.row.measurement.metrics

    @property
    def state(self) -> TrialState:
        """Whether it runs, was measured or failed."""
        return self.row.state

    @property
    def failure(self) -> Failure | None:
        """Why it failed."""
        return self.row.failure

    @property
    def is_baseline(self) -> bool:
        """Whether it is what all others are compared with."""
        return self.row.baseline

    @property
    def window(self) -> RawRun | None:
        """The raw timelines of the search's window, read now: power, queue, every request.

        None where the store keeps none.
        """
        with Store.open(self.store_url, create=False) as store:
            return store.raw_run(self.study, self.number)

    def __repr__(self) -> str:
        """Return the number, the state and what was set."""
        knobs = " ".join(f"{k}={v}" for k, v in self.configuration.knobs().items())
        return f"<TrialResult {self.number} {self.state.value}: {knobs or 'defaults'}>"


@dataclass(frozen=True, slots=True)
class StudyResults:
    """A study as it was when it was loaded; raw records are read when they are asked for."""

    identity: StudyIdentity
    rows: tuple[TrialRow, ...]
    repeats: tuple[RepeatRow, ...]
    store_url: str

    @property
    def spec(self) -> StudySpec:
        """What the study was asked for, with its present budget."""
        return spec_of(self.identity)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.identity.name

    @property
    def trials(self) -> tuple[TrialResult, ...]:
        """Every trial, by its number."""
        return tuple(map(self._trial, self.confirmed_front.trials))

    @property
    def front(self) -> tuple[TrialResult, ...]:
        """The Pareto front over the study's objectives, the best in the first of them first."""
        return tuple(map(self._trial, self.confirmed_front.front))

    @property
    def events(self) -> tuple[EventRow, ...]:
        """What happened during the study, read now, oldest first."""
        with Store.open(self.store_url, create=False) as store:
            return tuple(store.events(self.name))

    @property
    def confirmed_front(self) -> ConfirmedFront:
        """The front with what the repeats say of each member."""
        return confirmed_front(self.identity, self.rows, self.repeats)

    @property
    def recommendation(self) -> Recommendation:
        """The configuration to deploy.

        Raises `NoFeasibleConfigurationError` if nothing meets the SLO.
        """
        return self.recommend_for(None)

    def why_nothing_met(self) -> str:
        """Say, of a study with an empty front, how near its trials came to the SLOs."""
        return nothing_met(self.identity, self.rows, self.confirmed_front.slos)

    def recommend_for(self, slo: Sequence[str] | None) -> Recommendation:
        """Return the recommendation under other SLOs, such as `["p99_tpot_ms<=50"]`.

        Raises `NoFeasibleConfigurationError` if nothing meets them.
        """
        with Store.open(self.store_url, create=False) as store:
            return recommend(store, study=self.name, slos=_parsed(slo))

    def report_data(self) -> ReportData:
        """Return what the HTML report and `tuner.plot` draw, with raw windows."""
        with Store.open(self.store_url, create=False) as store:
            return read_report_data(store, self.name)

    def trials_dataframe(self, slo: Sequence[str] | None = None) -> pd.DataFrame:
        """Return one row per trial: knobs (`knob.NAME`), every metric, the front, failures.

        `slo`, e.g. `["p99_tpot_ms<=50"]`, replaces the study's own for `meets_slo` and `on_front`.
        """
        return frame(trial_rows(self.identity, self.rows, self.repeats, _parsed(slo)))

    def to_pandas(self, slo: Sequence[str] | None = None) -> pd.DataFrame:
        """Return `trials_dataframe`, under its first name."""
        return self.trials_dataframe(slo)

    def front_to_pandas(self, slo: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the trials on the Pareto front, the best in the first objective first."""
        trials = self.trials_dataframe(slo).set_index("number", drop=False)
        found = confirmed_front(self.identity, self.rows, self.repeats, _parsed(slo))
        return trials.loc[[t.number for t in found.front]].reset_index(drop=True)

    def repeats_to_pandas(self) -> pd.DataFrame:
        """Return one row per repeated measurement."""
        return frame(repeat_rows(self.name, self.repeats))

    def requests_to_pandas(self) -> pd.DataFrame:
        """Return one row per request of every trial; times in s, each trial on its own clock."""
        with Store.open(self.store_url, create=False) as store:
            return frame(request_rows(store, self.name))

    def recommend(self, slo: Sequence[str] | None = None) -> dict[str, Any]:
        """Return what `tuner recommend --format json` prints, as plain data.

        Raises `NoFeasibleConfigurationError` if nothing meets the SLO.
        """
        return recommendation_json(self.recommend_for(slo))

    def __repr__(self) -> str:
        """Return the name and the counts; never the store's address, which may hold a password."""
        measured = sum(row.state is TrialState.MEASURED for row in self.rows)
        return (
            f"<StudyResults '{self.name}': {self.identity.model} on {self.identity.gpu}, "
            f"{len(self.rows)} trials, {measured} measured, {len(self.repeats)} repeats>"
        )

    def _trial(self, row: TrialRow) -> TrialResult:
        return TrialResult(row, self.name, self.store_url)


def load_study(name: str, store_url: str) -> StudyResults:
    """Read a study; raises `UsageError` with near names if there is none."""
    with Store.open(store_url, create=False) as store:
        return StudyResults(
            identity=store.study(name),
            rows=tuple(store.trials(name)),
            repeats=tuple(store.repeats.of(name)),
            store_url=store_url,
        )


def _parsed(slo: Sequence[str] | None) -> list[Slo] | None:
    return None if slo is None else [Slo.parse(text) for text in slo]
