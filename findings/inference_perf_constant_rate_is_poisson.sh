#!/usr/bin/env bash
# inference-perf's load type `constant`, its default. Its timer speaks of "a small amount of random
# noise"; its gaps are exponential, scaled so that the last request ends the stage. At 10 requests/s the
# gaps spread as those of a Poisson process (1 % below 2 ms, 1 % above 0.4 s, not all 0.1 s), so a tail
# latency "at a constant rate" has the queues of bursts in it: a server that takes 80 ms a request, one
# at a time, would let nobody wait, and here the mean wait is as long as two requests.
# Its `poisson` differs from that at low rates: the last request of every second lies on the second,
# so at 1 request/s more than half of all requests come exactly at whole seconds.
# Seen with inference-perf 0.7.0. Its timers are read alone (no model libraries, any Python from 3.11).
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" 2>/dev/null; }
pip numpy==2.4.6
pip --no-deps --ignore-requires-python inference-perf==0.7.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import importlib.util
import itertools
import sys
import types
from importlib.metadata import version

import numpy as np

print("inference-perf", version("inference-perf"))
found = importlib.util.find_spec("inference_perf").submodule_search_locations[0]
for name in ("inference_perf", "inference_perf.loadgen", "inference_perf.utils"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [found + name.removeprefix("inference_perf").replace(".", "/")]
from inference_perf.loadgen.load_timer import ConstantLoadTimer, PoissonLoadTimer  # noqa: E402


def mean_wait_s(times_s: np.ndarray, service_s: float) -> float:
    free_s, waits_s = 0.0, []
    for time_s in times_s:
        waits_s.append(max(free_s - time_s, 0.0))
        free_s = max(free_s, time_s) + service_s
    return float(np.mean(waits_s))


# The timers seed themselves; with this many requests the bounds below are far from chance.
count = 20_000
constant_s = np.array(list(ConstantLoadTimer(rate=10, duration=count // 10).start_timer(0.0)))
gaps_s = np.diff(constant_s)
spread = gaps_s.std() / gaps_s.mean()
low_s, high_s = np.percentile(gaps_s, [1, 99])
wait_s, even_s = mean_wait_s(constant_s, 0.08), mean_wait_s(np.arange(count) / 10, 0.08)
print(f"constant, 10/s: deviation of the gaps {spread:.2f} of their mean (even 0, Poisson 1),")
print(f"  1 % below {low_s:.4f} s, 1 % above {high_s:.2f} s; mean wait {wait_s:.2f} s, even {even_s:.2f}")
assert len(constant_s) == count
assert 0.95 < spread < 1.05 and low_s < 0.002 and high_s > 0.4
assert 0.11 < wait_s < 0.22 and even_s == 0  # a Poisson process: 0.16 s

poisson_s = np.array(list(itertools.islice(PoissonLoadTimer(1, 600).start_timer(0.0), count)))
whole = np.mean(np.abs(poisson_s - np.round(poisson_s)) < 1e-6)
print(f"poisson, 1/s: {whole:.0%} of the requests at a whole second, of a Poisson process 0 %")
assert 0.6 < whole < 0.67
PY
