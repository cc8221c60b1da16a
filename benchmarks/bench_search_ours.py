"""A night of the tuner's own search: a warm server and early ends, until the confirmation."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
from bench_search_runs import (
    LAUNCH_S,
    NIGHT_S,
    NOISE,
    SETTLE_S,
    WINDOW_S,
    Log,
    Night,
    Point,
    World,
)
from bench_search_scenarios import LAUNCH_KNOBS, OBJECTIVES, REFUSED, WORKS, Scenario

from tuner.configuration import Value
from tuner.search.observation import Observation
from tuner.search.search import IDLE_GAIN, IDLE_GAIN_IN_DOUBT, Search
from tuner.search.space import Knob, Space
from tuner.study.confirmation.plan import SHARE_OF_HOURS
from tuner.study.proposals.stopping import IDLE_PROPOSALS

SEARCH_S = (1.0 - SHARE_OF_HOURS) * NIGHT_S  # the rest belongs to the confirmation
EARLY_S = 15.0
OVERLOAD_S = 45.0  # until a load that grows without bound is told from one that has not settled
LOG_KNOBS = ("max_num_seqs", "max_num_batched_tokens", "concurrency")
_CLEAR = 3.0  # standard deviations past the bound after the first seconds: an early end
_SURELY = 2.0  # of these are taken off for the bound that is told


def launch_key(point: Point) -> tuple[Value, ...]:
    return tuple(point[name] for name in LAUNCH_KNOBS if name in point)


def ours(world: World, seed: int) -> Night:
    """A warm server, early ends, and the search, until it is done or for `SEARCH_S`."""
    scenario = world.scenario
    space = search_space(scenario)
    search = Search(
        space,
        violations=len(scenario.slos),
        default=scenario.default,
        is_possible=is_possible,
        seed=seed,
    )
    rng, log = np.random.default_rng([seed, 77]), Log(world)
    seen: list[Observation] = []
    warm: Point | None = None
    idle = 0
    while log.clock_s < SEARCH_S and idle < IDLE_PROPOSALS:
        began_s = time.process_time()
        suggestion = search.propose(seen, warm=warm)
        log.night.proposal_s.append(time.process_time() - began_s)
        point = dict(suggestion.point)
        is_idle = suggestion.gain is not None and suggestion.gain < IDLE_GAIN
        is_idle &= (suggestion.gain_in_doubt or 0.0) < IDLE_GAIN_IN_DOUBT
        idle = idle + 1 if is_idle else 0
        is_warm = warm is not None and launch_key(warm) == launch_key(point)
        launch_s = None if is_warm else LAUNCH_S
        observation = _observe(world, point, rng)
        spent_s = (observation.wall_s or 0.0) + (launch_s or 0.0)
        seen.append(dataclasses.replace(observation, launch_s=launch_s, wall_s=spent_s))
        warm = point if is_warm or observation.wall_s else None
        log.add(point, spent_s, launched=not is_warm)
    log.night.search_s = log.clock_s
    return log.night


def _observe(world: World, point: Point, rng: np.random.Generator) -> Observation:
    """Measure as the tuner does: a clear miss is ended early, and told as a lower bound."""
    early = world.measure(point, rng, EARLY_S)
    if early.state != WORKS:
        wall_s = 0.0 if early.state == REFUSED else SETTLE_S + OVERLOAD_S
        return Observation(point, works=False, wall_s=wall_s, overload=early.overload)
    assert early.violations is not None
    bounds: list[float | None] = []
    for slo, violation in zip(world.scenario.slos, early.violations, strict=True):
        sd = NOISE[slo.metric] * math.sqrt(WINDOW_S / EARLY_S)
        bounds.append(violation - _SURELY * sd if violation > _CLEAR * sd else None)
    if any(bound is not None for bound in bounds):
        return Observation(
            point,
            objectives=(None,) * len(OBJECTIVES),
            violations=tuple(bounds),
            at_least=tuple(k for k, bound in enumerate(bounds) if bound is not None),
            wall_s=SETTLE_S + EARLY_S,
        )
    seen = world.measure(point, rng)
    assert seen.objectives is not None and seen.violations is not None
    return Observation(
        point,
        objectives=seen.objectives,
        violations=seen.violations,
        wall_s=SETTLE_S + WINDOW_S,
        overload=0.0,
    )


def search_space(scenario: Scenario) -> Space:
    return Space(
        [
            Knob(
                name,
                values,
                ordered=not isinstance(values[0], str),
                log=name in LOG_KNOBS,
                restarts=name in LAUNCH_KNOBS,
            )
            for name, values in scenario.knobs.items()
        ]
    )


def is_possible(point: Point) -> bool:
    """VLLM's own rule, which it documents: a step has room for a token of each sequence."""
    return int(point["max_num_batched_tokens"]) >= int(point["max_num_seqs"])
