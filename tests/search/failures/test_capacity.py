from __future__ import annotations

import math

import numpy as np

from tuner.search.failures.capacity import Capacity
from tuner.search.observation import Observation
from tuner.search.posterior import fit_models
from tuner.search.space import Knob, Point, Space

SPACE = Space(
    [
        Knob("weights", ("bf16", "fp8"), ordered=False),
        Knob("cache", ("bf16", "fp8"), ordered=False),
        Knob("gpus", (1, 2, 4)),
    ]
)


def log_capacity(point: Point) -> float:
    """0 is the offered load: no knob but the GPUs suffices alone, both precisions do together."""
    saved = 0.25 * (point["weights"] == "fp8") + 0.2 * (point["cache"] == "fp8")
    return -0.35 + saved + 0.6 * math.log2(float(point["gpus"]))


def observed(point: Point) -> Observation:
    short = log_capacity(point) < 0.0
    if short:
        return Observation(point, works=False, overload=-log_capacity(point))
    energy = math.log(float(point["gpus"])) - 0.1 * (point["weights"] == "fp8")
    return Observation(point, objectives=(energy,), overload=0.0)


def at(weights: str, cache: str, gpus: int) -> Point:
    return {"weights": weights, "cache": cache, "gpus": gpus}


def test_two_knobs_that_do_not_suffice_alone_are_expected_to_do_so_together() -> None:
    alone = [at("bf16", "bf16", 1), at("fp8", "bf16", 1), at("bf16", "fp8", 1)]
    others = [at("bf16", "bf16", 2), at("fp8", "bf16", 2), at("bf16", "fp8", 4)]
    models = fit_models(SPACE, [observed(point) for point in [*alone, *others]], 0)
    assert models is not None
    x = SPACE.coordinates_of([at("fp8", "fp8", 1), *alone])
    keeps_up = np.exp(models.constraint_posterior(x).log_works)
    assert keeps_up[0] > 0.2
    assert np.all(keeps_up[1:] < 0.5 * keeps_up[0])


def test_where_nothing_falls_behind_it_says_nothing() -> None:
    x = SPACE.coordinates_of([at("bf16", "bf16", 1), at("fp8", "fp8", 4)])
    model = Capacity(x, np.zeros(2), SPACE.unordered)
    assert np.all(model.log_probability(x) == 0.0)


def test_between_what_falls_behind_and_what_keeps_up_either_may_be_true() -> None:
    """Many that keep up show that their capacity is 1 or more, not that it is 1."""
    x = np.array([0.0, 0.15, 0.3, *np.linspace(0.6, 1.0, 20)])[:, None]
    overloads = np.array([0.6, 0.4, 0.2, *np.zeros(20)])
    capacity = Capacity(x, overloads, np.array([False]))
    behind, between, beside = np.exp(capacity.log_probability(np.array([[0.1], [0.45], [0.8]])))
    assert behind < 0.02
    assert 0.1 < between < 0.98
    assert beside > 0.95
