"""All windows of a configuration count together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.knob_rows import DEFAULT, FULL, trial
from hypothesis import given
from hypothesis import strategies as st

from tuner.analysis.knobs.searched import Searched, searched, together


@given(st.permutations(range(3)))
def test_windows_of_a_configuration_count_as_one_whatever_their_order(order: list[int]) -> None:
    windows = [trial(n + 1, FULL, 0.25 + 0.001 * k, 40.0 + k) for n, k in enumerate(order)]
    (default, found) = searched([DEFAULT, *windows])
    assert (default.windows, found.windows, found.trial.number) == (1, 3, 1)
    assert found.trial.measurement is not None
    assert found.trial.measurement.metrics["energy_per_output_token_j"] == pytest.approx(0.251)
    assert found.trial.measurement.metrics["p99_tpot_ms"] == pytest.approx(41.0)


@given(st.lists(st.floats(0.2, 0.3), min_size=1, max_size=6), st.integers(0, 6))
def test_windows_add_up_however_they_are_put_together(energies_j: list[float], cut: int) -> None:
    ones = [Searched(trial(n, FULL, each_j, 40.0), 1) for n, each_j in enumerate(energies_j)]
    parts = [together(part) for part in (ones[:cut], ones[cut:]) if part]
    found, whole = together(parts), together(ones)
    assert found.windows == whole.windows == len(ones)
    assert found.trial.measurement is not None and whole.trial.measurement is not None
    assert found.trial.measurement.metrics == pytest.approx(whole.trial.measurement.metrics)


def test_a_window_that_was_ended_early_has_no_part_in_a_mean() -> None:
    one, other = trial(1, FULL, 0.25, 40.0), trial(2, FULL, 0.35, 90.0)
    assert other.measurement is not None
    cut = replace(other, measurement=replace(other.measurement, ended_early="missed"))
    assert [found.trial for found in searched([DEFAULT, one, cut])] == [DEFAULT, one]
