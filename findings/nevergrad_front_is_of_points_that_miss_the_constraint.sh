#!/usr/bin/env bash
# Nevergrad minimises two objectives under a constraint: `minimize(..., constraint_violation=[...])`. The
# constraint steers the search, but `pareto_front()`, which is the only answer where there are several
# objectives (`recommend()` says so), knows nothing of it. Where larger batches cost less of both objectives and
# only a latency SLO forbids them, every point of the front misses the SLO, and the best points that keep
# it are left out as dominated. With one objective `recommend()` keeps to the constraint.
# Seen with nevergrad 1.0.12.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    nevergrad==1.0.12 numpy==2.4.6 pandas==3.1.1 cma==4.5.0 bayesian-optimization==1.4.0 2>/dev/null
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import nevergrad as ng
import numpy as np

print("nevergrad", version("nevergrad"))


def rate(clock: float, batch: float) -> float:
    return clock * batch**0.5


def joules(clock: float, batch: float) -> float:
    return (0.2 + clock**2) / rate(clock, batch)


def late_by(clock: float, batch: float) -> float:
    """Above 0 the SLO is missed: a batch of 40 is the largest at the full clock."""
    return batch / clock - 40


def searched(optimizer: str, objectives: object) -> tuple[object, object, list[dict]]:
    space = ng.p.Dict(clock=ng.p.Scalar(lower=0.2, upper=1), batch=ng.p.Scalar(lower=1, upper=64))
    space.random_state.seed(1)
    search = ng.optimizers.registry[optimizer](parametrization=space, budget=200)
    tried: list[dict] = []

    def measured(setting: dict) -> object:
        tried.append(setting)
        return objectives(**setting)

    found = search.minimize(measured, constraint_violation=[lambda setting: late_by(**setting)])
    return search, found, tried


for optimizer in ("NGOpt", "DE", "OnePlusOne"):
    search, _, tried = searched(optimizer, lambda **s: [joules(**s), 1 / rate(**s)])
    front = search.pareto_front()
    missing_slo = sum(late_by(**point.value) > 0 for point in front)
    kept = np.array([[joules(**s), 1 / rate(**s)] for s in tried if late_by(**s) <= 0])
    best = [tuple(k) for k in kept if not np.any(np.all(kept <= k, axis=1) & np.any(kept < k, axis=1))]
    shown = {tuple(point.losses) for point in front} & set(best)
    print(f"{optimizer}: {missing_slo} of {len(front)} points of the front miss the SLO;", end=" ")
    print(f"{len(kept)} of {len(tried)} tried keep it, of their best {len(best)} the front has {len(shown)}")
    assert missing_slo == len(front) > 0 and len(best) > 0 and not shown

_, found, _ = searched("DE", lambda **s: joules(**s))
print(f"joules alone: recommended {found.value}, late by {late_by(**found.value):.1f}")
assert late_by(**found.value) <= 0
PY
