"""A study for a notebook: its tables as pandas frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuner.analysis.recommendation.recommend import recommend
from tuner.report.frames import frame, repeat_rows, request_rows, trial_rows
from tuner.report.json_forms import recommendation_json
from tuner.slo import Slo
from tuner.store import Store
from tuner.store.rows import RepeatRow, StudyIdentity, TrialRow

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class StudyResults:
    """A study as it was when it was loaded; raw records are read when they are asked for."""

    identity: StudyIdentity
    trials: tuple[TrialRow, ...]
    repeats: tuple[RepeatRow, ...]
    store_url: str

    def to_pandas(self, slo: Sequence[str] | None = None) -> pd.DataFrame:
        """Return one row per trial: knobs (`knob.NAME`), every metric, the front, failures.

        `slo`, e.g. `["p99_tpot_ms<=50"]`, replaces the study's own for `meets_slo` and `on_front`.
        """
        return frame(trial_rows(self.identity, self.trials, self.repeats, _parsed(slo)))

    def front_to_pandas(self, slo: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the trials on the Pareto front, those of least energy first."""
        rows = trial_rows(self.identity, self.trials, self.repeats, _parsed(slo))
        members = frame(rows).query("on_front")
        return members.sort_values("energy_per_output_token_j", ignore_index=True)

    def repeats_to_pandas(self) -> pd.DataFrame:
        """Return one row per repeated measurement."""
        return frame(repeat_rows(self.identity.name, self.repeats))

    def requests_to_pandas(self) -> pd.DataFrame:
        """Return one row per request of every trial; times in s, each trial on its own clock."""
        with Store.open(self.store_url, create=False) as store:
            return frame(request_rows(store, self.identity.name))

    def recommend(self, slo: Sequence[str] | None = None) -> dict[str, Any]:
        """Return what `tuner recommend --format json` prints.

        Raises `NoFeasibleConfigurationError` if nothing meets the SLO.
        """
        with Store.open(self.store_url, create=False) as store:
            found = recommend(store, study=self.identity.name, slos=_parsed(slo))
        return recommendation_json(found)


def load_study(name: str, store_url: str) -> StudyResults:
    """Read a study; raises `UsageError` with near names if there is none."""
    with Store.open(store_url, create=False) as store:
        return StudyResults(
            identity=store.study(name),
            trials=tuple(store.trials(name)),
            repeats=tuple(store.repeats.of(name)),
            store_url=store_url,
        )


def _parsed(slo: Sequence[str] | None) -> list[Slo] | None:
    return None if slo is None else [Slo.parse(text) for text in slo]
