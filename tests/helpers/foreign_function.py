"""The search on a function that is not vLLM: Branin and Currin, constrained to a disc."""

from __future__ import annotations

import math

from tuner.pareto import pareto_front
from tuner.search.observation import Observation
from tuner.search.search import Search
from tuner.search.space import Knob, Point, Space


def evaluate(point: Point) -> Observation:
    x, y = float(point["x"]), float(point["y"])
    a, b = 15 * x - 5, 15 * y
    branin = (b - 5.1 / (4 * math.pi**2) * a**2 + 5 / math.pi * a - 6) ** 2
    branin += 10 * (1 - 1 / (8 * math.pi)) * math.cos(a) + 10
    top = 2300 * x**3 + 1900 * x**2 + 2092 * x + 60
    currin = (1 - math.exp(-1 / (2 * max(y, 1e-9)))) * top / (100 * x**3 + 500 * x**2 + 4 * x + 20)
    outside = (x - 0.5) ** 2 + (y - 0.5) ** 2 - 0.2
    return Observation(point, objectives=(branin, currin), violations=(outside,))


def main(evaluations: int = 40) -> list[Observation]:
    space = Space([Knob.between("x", 0.0, 1.0), Knob.between("y", 0.0, 1.0)])
    search, seen = Search(space, violations=1), list[Observation]()
    for _ in range(evaluations):
        seen.append(evaluate(search.propose(seen).point))
    inside = [o for o in seen if (o.violations[0] or 0.0) <= 0.0]
    for index in pareto_front([o.objectives for o in inside]):
        print(dict(inside[index].point), inside[index].objectives)
    return seen


if __name__ == "__main__":
    main()
