"""What ending hopeless loads early saves, and how often it is wrong: prints three tables.

    PYTHONPATH=tests python -m benchmarks.bench_early_end [--trials 60]

Everything runs on the emulator's virtual clock. A load that was ended early is run again to the end
of its window, with the same requests and the same noise: if that window met the SLO, the early end
was false.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
from helpers.early_ends import NEVER, PLAN, Ran, good, run_once
from helpers.virtual_loads import replay

from tuner.configuration import Configuration
from tuner.emulator.refusal import LaunchRefusedError
from tuner.measurement.reduce import reduce_run
from tuner.measurement.steady_window import SteadyWindow
from tuner.records import Failure, Load
from tuner.slo import Slo

LOADS = (
    Load(request_rate=2.0),
    Load(request_rate=4.0),
    Load(request_rate=8.0),
    Load(concurrency=16),
    Load(concurrency=64),
)
STUDY_SLOS = (Slo("p99_tpot_ms", 25.0), Slo("p99_ttft_ms", 500.0))
# of what the whole window showed: an SLO at 1.0 is met by nothing to spare
BOUND_SHARES = (0.5, 0.8, 0.9, 0.95, 1.0, 1.02, 1.05, 1.1, 1.3)
PERCENTILES = ("p50_tpot_ms", "p99_tpot_ms", "p50_ttft_ms", "p95_ttft_ms", "p99_ttft_ms",
               "p99_e2el_ms")  # fmt: skip


def random_configuration(rng: np.random.Generator) -> Configuration:
    """Draw from what the shipped `power` space holds."""
    return Configuration(
        flags={
            "max_num_seqs": int(2 ** rng.integers(3, 11)),
            "max_num_batched_tokens": int(2 ** rng.integers(10, 15)),
        },
        device={
            "power_limit_w": float(25 * rng.integers(8, 29)),
            "sm_clock_mhz": int(60 * rng.integers(14, 34)),
        },
    )


@dataclass(slots=True)
class Tally:
    """What became of the trials of a study."""

    trials: int = 0
    met: int = 0
    ended: int = 0
    false: int = 0
    whole_s: float = 0.0
    used_s: float = 0.0

    def note(self, early: Ran, full: Ran, slos: tuple[Slo, ...]) -> None:
        is_good, ended = good(full.run, slos), early.ended_early is not None
        self.trials += 1
        self.met += is_good
        self.ended += ended
        self.false += ended and is_good
        self.whole_s += full.seconds
        self.used_s += early.seconds

    def print(self, name: str) -> None:
        saved = 1 - self.used_s / self.whole_s
        print(
            f"{name:12}{self.trials:8}{self.met:5}{self.ended:13}{self.false:7}{saved:17.0%}",
            flush=True,
        )


def print_study(trials: int) -> None:
    """A random study: what early ends save, and which were false."""
    print(f"random configurations, {', '.join(map(str, STUDY_SLOS))}, windows of 120 s")
    print(
        f"{'load':12}{'trials':>8}{'met':>5}{'ended early':>13}{'false':>7}{'load time saved':>17}"
    )
    watched, rng, everything = replace(PLAN, slos=STUDY_SLOS), np.random.default_rng(0), Tally()
    for load in LOADS:
        tally = Tally()
        for seed in range(trials // len(LOADS)):
            configuration = random_configuration(rng)
            try:
                early = run_once(configuration, load, watched, seed)
            except LaunchRefusedError:
                continue
            full = early
            if early.ended_early is not None:
                full = run_once(configuration, load, NEVER, seed)
            for one in (tally, everything):
                one.note(early, full, STUDY_SLOS)
        tally.print(f"{load.request_rate:g}/s" if load.request_rate else f"x{load.concurrency}")
    everything.print("all")
    print(f"false: {everything.false} of {everything.met} that met the SLO")


def print_borderline(runs: int) -> None:
    """SLOs around what the whole window showed: the hardest that can be asked."""
    print("\nthe same loads, each with SLOs at shares of what its whole window showed")
    print(f"{'bound / shown':>14}{'asked':>8}{'ended early':>13}{'false':>7}")
    tally = {share: [0, 0] for share in BOUND_SHARES}
    rng = np.random.default_rng(1)
    for seed in range(runs):
        load = LOADS[seed % len(LOADS)]
        try:
            full = run_once(
                random_configuration(rng), load, NEVER, 1000 + seed, bursts=seed % 2 == 0
            )
        except LaunchRefusedError:
            continue
        result = reduce_run(full.run, {})
        if isinstance(result, Failure):
            continue
        for metric in PERCENTILES:
            for share, found in tally.items():
                watch = SteadyWindow(
                    replace(PLAN, slos=(Slo(metric, share * result.metrics[metric] * (1 + 1e-9)),))
                )
                replay(full.run, watch)
                found[0] += 1
                found[1] += watch.ended_early is not None
    for share, (asked, ended) in tally.items():
        wrong = ended if share >= 1.0 else 0
        print(f"{share:14.2f}{asked:8}{ended:13}{wrong:7}", flush=True)
    asked = sum(n for share, (n, _) in tally.items() if share >= 1.0)
    false = sum(n for share, (_, n) in tally.items() if share >= 1.0)
    print(f"false: {false} of {asked} that met the SLO, {false / asked:.2%}")


def print_saturation(runs: int) -> None:
    """Open loads below and above what the default keeps up with, in even and in bursty arrivals."""
    print("\nopen loads of chat on the default configuration without any SLO")
    print(f"{'req/s':>6}{'arrivals':>10}{'runs':>6}{'kept up':>9}{'ended early':>13}{'after':>8}")
    for rate in (4.0, 12.0, 16.0, 24.0, 32.0, 48.0):
        for bursts in (False, True):
            early = [
                run_once(Configuration(), Load(request_rate=rate), PLAN, seed, bursts=bursts)
                for seed in range(runs)
            ]
            ended = [r for r in early if r.ended_early is not None]
            kept = sum(good(r.run, ()) for r in early if r.ended_early is None)
            after = f"{np.mean([r.seconds for r in ended]):6.0f} s" if ended else ""
            arrivals = "bursts" if bursts else "Poisson"
            print(f"{rate:6g}{arrivals:>10}{runs:6}{kept:9}{len(ended):13}{after:>8}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    options = parser.parse_args()
    print_study(options.trials)
    print_borderline(max(options.trials // 4, 5))
    print_saturation(max(options.trials // 30, 1))


if __name__ == "__main__":
    main()
