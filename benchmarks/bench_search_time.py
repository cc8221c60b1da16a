"""How long one proposal takes, in seconds of one thread, and how that grows."""

from __future__ import annotations

import time

import numpy as np

from tuner.search.observation import Observation
from tuner.search.search import Search
from tuner.search.space import Knob, Point, Space

COUNTS = (75, 150, 300)
SPACE = Space(
    [
        *(Knob(f"knob {k}", tuple(range(12)), restarts=k == 0) for k in range(5)),
        Knob("option", ("a", "b"), ordered=False, restarts=True),
    ]
)


def evaluate(point: Point, rng: np.random.Generator) -> Observation:
    """Two objectives, two constraints, and a corner that crashes."""
    a, b, c, d, e = (int(point[f"knob {k}"]) / 11 for k in range(5))
    option = 0.3 * (point["option"] == "a")
    if a + c > 1.6:
        return Observation(point, works=False, launch_s=150.0, wall_s=150.0)
    noise = 0.03 * rng.standard_normal(4)
    return Observation(
        point,
        objectives=(a + b**2 + option + noise[0], 1.5 - a + (c - 0.5) ** 2 + noise[1]),
        violations=(d - e + 0.1 + noise[2], float(np.sin(4 * b)) - 0.5 + noise[3]),
        launch_s=150.0,
        wall_s=250.0,
    )


def main() -> None:
    rng = np.random.default_rng(0)
    rows = SPACE.at(rng.random((max(COUNTS), len(SPACE.knobs))))
    seen = [evaluate(SPACE.point(row), rng) for row in rows]
    search = Search(SPACE, violations=2, starts=0)
    taken_s = {}
    for count in COUNTS:
        began_s = time.process_time()
        search.propose(seen[:count], warm=seen[count - 1].point)
        taken_s[count] = time.process_time() - began_s
    for count, seconds in taken_s.items():
        ratio = seconds / taken_s[COUNTS[0]]
        print(
            f"proposal after {count} evaluations: {seconds:.2f} s, {ratio:.1f} times that after "
            f"{COUNTS[0]} (quadratic: {(count / COUNTS[0]) ** 2:.0f})"
        )


if __name__ == "__main__":
    main()
