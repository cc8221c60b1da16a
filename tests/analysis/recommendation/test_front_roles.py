"""Which member of a front is the fastest, of most throughput, and the knee."""

from __future__ import annotations

from helpers.night_rows import trial_with

from tuner.analysis.recommendation.front_roles import Role, roles
from tuner.store import Store, StudyIdentity, TrialRow

OBJECTIVES = ("energy_per_output_token_j", "p99_tpot_ms")


def member(number: int, energy_j: float, tpot_ms: float, tok_s: float | None = None) -> TrialRow:
    metrics = {"energy_per_output_token_j": energy_j, "p99_tpot_ms": tpot_ms}
    return trial_with(
        number, metrics | ({} if tok_s is None else {"output_throughput_tok_s": tok_s})
    )


def test_each_role_goes_to_the_trial_that_has_it() -> None:
    front = [member(1, 1.0, 100.0, 9.0), member(2, 2.0, 20.0, 5.0), member(3, 10.0, 10.0, 7.0)]
    assert roles(front, OBJECTIVES) == {
        Role.FASTEST: 3,
        Role.MOST_THROUGHPUT: 1,
        Role.KNEE: 2,
    }


def test_the_knee_does_not_depend_on_units_or_order() -> None:
    front = [member(1, 1.0, 100.0), member(2, 1.5, 60.0), member(3, 3.0, 15.0), member(4, 9, 10.0)]
    scaled = [
        member(t.number, e * 1000, ms)
        for t, e, ms in zip(front, (1, 1.5, 3, 9), (100, 60, 15, 10), strict=True)
    ]
    assert roles(front, OBJECTIVES)[Role.KNEE] == 3
    assert roles(scaled, OBJECTIVES)[Role.KNEE] == 3
    assert roles(front[::-1], OBJECTIVES)[Role.KNEE] == 3


def test_what_cannot_be_told_is_left_out() -> None:
    two = [member(1, 1.0, 100.0), member(2, 2.0, 20.0)]
    assert roles(two, OBJECTIVES) == {Role.FASTEST: 2}
    assert roles([], OBJECTIVES) == {}
    same = [member(n, 1.0, 10.0) for n in range(3)]
    assert Role.KNEE not in roles(same, OBJECTIVES)
    assert Role.KNEE not in roles([*two, member(3, 3.0, 10.0)], OBJECTIVES[:1])


def test_the_night(store: Store, identity: StudyIdentity) -> None:
    by_number = {t.number: t for t in store.trials("night")}
    front = [by_number[n] for n in (2, 1, 0)]
    assert roles(front, identity.objectives)[Role.FASTEST] == 0
    assert roles(front, identity.objectives)[Role.MOST_THROUGHPUT] == 1


def test_in_an_open_loop_none_has_the_most_throughput() -> None:
    front = [member(1, 1.0, 100.0, 9.0), member(2, 2.0, 20.0, 5.0), member(3, 10.0, 10.0, 7.0)]
    found = roles(front, OBJECTIVES, is_open_loop=True)
    assert found == {Role.FASTEST: 3, Role.KNEE: 2}
