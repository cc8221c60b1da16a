import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import UsageError
from tuner.metrics import METRICS, Direction
from tuner.spec.objective import Objective, costs


def test_the_direction_is_the_metrics_own_unless_given() -> None:
    assert Objective.parse("output_throughput_tok_s").direction is Direction.MAX
    assert Objective.parse("output_throughput_tok_s:min").direction is Direction.MIN
    assert str(Objective.parse("mean_power_w")) == "mean_power_w:min"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("energy", "unknown metric 'energy'"),
        ("energy_per_output_tokn_j", "did you mean 'energy_per_output_token_j'"),
        ("mean_power_w:least", "found ':least', allowed: ':min', ':max'"),
    ],
)
def test_a_typo_says_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        Objective.parse(text)
    assert says in str(caught.value)


@given(st.sampled_from(sorted(METRICS)), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_less_cost_is_better(name: str, a: float, b: float) -> None:
    objective = Objective.parse(name)
    cost_a, cost_b = objective.cost({name: a}), objective.cost({name: b})
    assert cost_a is not None and cost_b is not None
    better = a < b if objective.direction is Direction.MIN else a > b
    if cost_a != cost_b:
        assert (cost_a < cost_b) == better


def test_what_was_not_measured_has_no_cost() -> None:
    objectives = (Objective.parse("mean_power_w"), Objective.parse("p99_tpot_ms"))
    assert costs(objectives, {"mean_power_w": 3.0}) is None
    assert objectives[0].cost({}) is None
