from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.analysis.outcomes import slos_of
from tuner.analysis.trial_summary import kwh_of, saving_percent, trial_summary
from tuner.metrics import TEXT
from tuner.store import Store, StudyIdentity

energies = st.floats(1e-6, 1e6)


@given(energies, energies, st.floats(0.01, 100.0))
def test_saving_does_not_depend_on_the_unit_of_energy(e: float, default: float, k: float) -> None:
    scaled, plain = saving_percent(k * e, k * default), saving_percent(e, default)
    assert scaled == pytest.approx(plain, rel=1e-6, abs=1e-6)


@given(energies)
def test_saving_against_itself_is_0_and_half_the_energy_saves_50_percent(e: float) -> None:
    assert saving_percent(e, e) == 0.0
    assert saving_percent(e / 2.0, e) == pytest.approx(50.0)


def test_unknown_stays_unknown() -> None:
    assert saving_percent(None, 1.0) is None
    assert saving_percent(1.0, None) is None
    assert kwh_of(TEXT, None) is None


def test_3_6_joules_per_token_are_1_kwh_per_million_tokens() -> None:
    assert kwh_of(TEXT, 3.6) == pytest.approx(1.0)


def test_a_failed_trial_has_its_reason_and_no_figure(store: Store, identity: StudyIdentity) -> None:
    trials = store.trials("night")
    shown = trial_summary(trials[5], trials[0], slos_of(identity))
    assert shown.reason == "CUDA out of memory [rank 0]"
    assert shown.meets_slo is None
    assert (shown.energy_per_output_token_j, shown.saving_percent) == (None, None)
