"""What the tuner relies on of Optuna's private parts; each part must do this in every version."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from tuner.study.proposals.optuna_compat import show_constraints, writable_trial


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(directions=["minimize"])


def test_a_trial_that_was_asked_for_elsewhere_takes_attributes(study: optuna.Study) -> None:
    number = study.ask({"x": FloatDistribution(0.0, 1.0)}).number
    (frozen,) = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    trial = writable_trial(study, frozen)
    trial.set_user_attr("reason", "told")
    trial.set_constraint("slo", -0.5)
    study.tell(number, [1.0])
    (ended,) = study.trials
    assert ended.user_attrs == {"reason": "told"}
    assert ended.constraints == {"slo": -0.5}


def test_constraints_are_where_the_dashboard_looks_for_them(study: optuna.Study) -> None:
    study.ask({"x": FloatDistribution(0.0, 1.0)})
    show_constraints(study, study.trials[0], (1.0, -1.0))
    assert study.trials[0].system_attrs["constraints"] == [1.0, -1.0]


def test_the_parameters_of_a_queued_trial_are_known_before_it_is_asked_for(
    study: optuna.Study,
) -> None:
    study.enqueue_trial({"x": 0.25})
    assert study.trials[0].system_attrs["fixed_params"] == {"x": 0.25}
