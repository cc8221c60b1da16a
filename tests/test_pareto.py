from hypothesis import given
from hypothesis import strategies as st

from tuner.pareto import dominates, pareto_front, spread_order

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25)


def test_a_small_front() -> None:
    points = [(1, 5), (2, 2), (3, 3), (5, 1), (2, 2)]
    assert pareto_front(points) == [0, 1, 3]


@given(POINTS)
def test_nothing_dominates_a_member_and_a_member_covers_everything(
    points: list[tuple[int, int]],
) -> None:
    front = [points[i] for i in pareto_front(points)]
    assert len(set(front)) == len(front)
    for member in front:
        assert not any(dominates(other, member) for other in points)
    for point in points:
        assert any(m == point or dominates(m, point) for m in front)


@given(POINTS, st.randoms())
def test_order_and_duplicates_do_not_matter(points: list[tuple[int, int]], random: object) -> None:
    doubled = points + points
    random.shuffle(doubled)  # type: ignore[attr-defined]
    assert {points[i] for i in pareto_front(points)} == {doubled[i] for i in pareto_front(doubled)}


def test_a_front_is_gone_over_by_its_ends_and_its_knee_first() -> None:
    front = [(0.0, 10.0), (1.0, 9.0), (2.0, 2.0), (3.0, 1.9), (6.0, 1.0), (10.0, 0.0)]
    assert spread_order(front, []) == [0, 2, 5, 4, 1, 3]
    assert spread_order(front, [0, 5]) == [2, 4, 1, 3]
    assert spread_order([(5.0,)], []) == [0] and spread_order([], []) == []


@given(POINTS)
def test_a_front_is_gone_over_once_whatever_its_units(points: list[tuple[int, int]]) -> None:
    front = [points[i] for i in pareto_front(points)]
    order = spread_order(front, [])
    assert sorted(order) == list(range(len(front)))
    assert order == spread_order([(4 * x + 1, y / 2) for x, y in front], [])
