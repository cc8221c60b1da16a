"""Failure causes: what failed twice for one root is not asked for again."""

import pytest

from tuner.search.failures.causes import FailureCauses, root_of
from tuner.search.observation import Observation
from tuner.search.search import Search
from tuner.search.space import Condition, Knob, Point, Space

SPACE = Space(
    [
        Knob("sequences", (8, 16, 32, 64), log=True),
        Knob("quantization", ("unset", "fp8", "awq"), ordered=False, restarts=True),
        Knob("cache", ("unset", "fp8"), ordered=False, restarts=True),
        Knob("gpus", (1, 2, 4, 8), restarts=True, discrete=True),
    ]
)
MISSING = "vLLM refused to start: ModuleNotFoundError: No module named 'kernels' (pid 1234)"


def point(sequences: int, quantization: str, cache: str = "unset", gpus: int = 1) -> Point:
    return {
        "sequences": sequences,
        "quantization": quantization,
        "cache": cache,
        "gpus": gpus,
    }


def works(at: Point) -> Observation:
    return Observation(at, objectives=(1.0,))


def fails(at: Point, cause: str = MISSING) -> Observation:
    return Observation(at, works=False, cause=cause)


def causes(*observations: Observation) -> FailureCauses:
    return FailureCauses.of(SPACE, observations)


def test_a_second_failure_blames_the_option_and_nothing_else() -> None:
    once = causes(works(point(64, "unset")), fails(point(8, "fp8")))
    assert not once.rules_out(point(16, "fp8"))
    twice = causes(
        works(point(64, "unset")), fails(point(8, "fp8")), fails(point(32, "fp8", gpus=4))
    )
    assert twice.blames(point(16, "fp8", "fp8", 2))
    assert not twice.rules_out(point(8, "awq"))
    assert not twice.rules_out(point(8, "unset", "fp8"))


def test_several_suspects_are_told_apart() -> None:
    known = [works(point(64, "unset")), fails(point(8, "fp8", "fp8"))]
    assert causes(*known).rules_out(point(16, "fp8", "fp8"))
    assert not causes(*known).rules_out(point(16, "fp8"))
    assert not causes(*known).rules_out(point(16, "unset", "fp8"))
    blamed = causes(*known, fails(point(8, "fp8")))
    assert blamed.blames(point(64, "fp8"))
    assert not blamed.rules_out(point(64, "unset", "fp8"))


def test_another_root_and_no_root_blame_nothing() -> None:
    base = works(point(64, "unset"))
    assert not causes(base, fails(point(8, "fp8"), "one"), fails(point(16, "fp8"), "two")).blamed
    unknown = Observation(point(8, "fp8"), works=False)
    assert not causes(base, unknown, unknown).blamed


def test_an_option_that_works_somewhere_is_not_blamed() -> None:
    found = causes(works(point(64, "fp8")), fails(point(8, "fp8")), fails(point(16, "fp8")))
    assert not found.rules_out(point(32, "fp8"))


def test_numbers_addresses_and_paths_do_not_make_another_root() -> None:
    assert root_of("died at 0x7f3a in /tmp/a.log after 12.5 s") == root_of(
        "died at 0x11 in /var/b.log after 3 s"
    )


def test_a_field_that_does_not_exist_is_no_suspect() -> None:
    space = Space(
        [
            Knob("method", ("unset", "ngram"), ordered=False),
            Knob("depth", (2, 4), ordered=False, condition=Condition("method", "ngram")),
            Knob("other", ("a", "b"), ordered=False),
        ]
    )
    found = FailureCauses.of(
        space,
        [
            Observation({"method": "unset", "other": "a"}, objectives=(1.0,)),
            *(Observation({"method": "unset", "other": "b"}, works=False, cause="x"),) * 2,
        ],
    )
    assert found.blames({"method": "ngram", "depth": 4, "other": "b"})
    assert not found.rules_out({"method": "ngram", "depth": 4, "other": "a"})


@pytest.mark.parametrize("seed", range(3))
def test_the_start_design_asks_a_broken_option_twice_at_most(seed: int) -> None:
    search = Search(SPACE, violations=0, default=point(64, "unset"), seed=seed)
    observations: list[Observation] = []
    for _ in range(14):
        at = search.propose(observations).point
        if at["quantization"] == "fp8":
            observations.append(fails(at))
        else:
            observations.append(works(at))
    assert sum(o.point["quantization"] == "fp8" for o in observations) <= 2
