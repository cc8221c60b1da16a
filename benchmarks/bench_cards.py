"""Several cards in virtual time: speed, quality, whether cards mislead, and where it breaks.

python -m benchmarks.bench_cards speed    # 8 workers beside one, on the emulator, for as long
python -m benchmarks.bench_cards front    # how soon they have one worker's front of four hours
python -m benchmarks.bench_cards studies  # what is recommended on cards that differ
python -m benchmarks.bench_cards scale    # the driver's own work with up to 64 workers
python -m benchmarks.bench_cards ray      # what Ray adds to one evaluation
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from helpers.benches import plan, virtual_order
from helpers.ray_cluster import ray_cluster
from helpers.scripted import Recorder, ScriptedEvaluator, measurement
from helpers.testbed import OWNER, identity

from tuner.analysis.recommendation.recommend import recommend
from tuner.catalog.gpu import card_factor
from tuner.configuration import Configuration
from tuner.errors import NoFeasibleConfigurationError
from tuner.evaluation.evaluator import Evaluation, LoadRun
from tuner.evaluation.factory import RunContext, make_evaluator
from tuner.evaluation.remote.ray_carrier import RayCarrier
from tuner.evaluation.remote.ray_cluster import connect
from tuner.evaluation.remote.ray_head import RayHead
from tuner.evaluation.remote.remote_evaluator import RemoteEvaluator
from tuner.pareto import hypervolume
from tuner.records import Failure, Measurement, RawRun, Timing
from tuner.search import posterior
from tuner.spec.search_space import SearchSpace
from tuner.spec.study import StudySpec
from tuner.store import Store
from tuner.store.lock.one_writer_storage import OneWriterStorage
from tuner.study.confirmation import run as confirmation_run
from tuner.study.confirmation.run import ConfirmationRun
from tuner.study.loop import StudyRun
from tuner.study.proposals.proposals import Proposals
from tuner.study.proposals.search_task import Asker
from tuner.study.run import start_study
from tuner.study.workers.card_baselines import CardBaselines
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.other_cards import default_elsewhere
from tuner.study.workers.worker import Worker

ENERGY, TPOT = "energy_per_output_token_j", "p99_tpot_ms"
HOURS = 0.5
SPEED = StudySpec(
    model="meta-llama/Llama-3.1-8B-Instruct",
    emulate="H100-SXM",
    space="power",
    slo=(f"{TPOT}<=25",),
    request_rate=4.0,
    hours=HOURS,
    max_window_s=40.0,
    stop_when_flat=False,
    confirm=False,
    checks=False,
    study="s",
)
# flags of which most need a launch, for as long as one worker has to be asked to find the front
FRONT = SPEED.model_copy(
    update={"space": "default+precision+power", "allow_output_changes": True, "hours": 4.0}
)
BESIDE_HOURS = 1.0  # of many workers, until they have it too


@contextmanager
def _new_store() -> Iterator[Store]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(f"{folder}/s.db", create=True) as store,
    ):
        yield store


@dataclass(frozen=True)
class Night:
    """One study: its trials as they ended, and what its cards did, s of one card.

    A trial is its end, s, and its objectives; the energy is what card 0 would have taken.
    """

    trials: list[tuple[float, float, float]]
    spent_s: float
    parts: dict[str, float]

    @property
    def per_hour(self) -> float:
        return 3600.0 * len(self.trials) / self.spent_s

    def grown(self) -> list[tuple[float, float]]:
        """Return the hypervolume after each trial, in logs, beside a fixed reference."""
        reference = (math.log(0.3), math.log(30.0))
        points: list[tuple[float, float]] = []
        grown = []
        for at_s, energy, tpot in self.trials:
            if math.isfinite(energy):
                points.append((math.log(energy), math.log(tpot)))
            grown.append((at_s, hypervolume(points, reference) if points else 0.0))
        return grown


def speed(seeds: int, workers: int = 8) -> None:
    """Print evaluations per hour, hypervolume and time to the front beside one worker's.

    Both have the same hours. Proposals cost no virtual time: what they take is in `scale`.
    """
    found: dict[str, list[float]] = {"rate": [], "volume": [], "time": [], "trials": []}
    for seed in range(seeds):
        one, many = (_night(SPEED, seed, cards) for cards in (1, workers))
        alone, beside = one.grown(), many.grown()
        goal = 0.98 * alone[-1][1]
        (one_s, one_trials), (many_s, many_trials) = (_reached(g, goal) for g in (alone, beside))
        found["rate"].append(many.per_hour / one.per_hour)
        found["volume"].append(beside[len(alone) - 1][1] / alone[-1][1])
        found["time"].append(one_s / many_s)
        found["trials"].append(many_trials / one_trials)
        print(
            f"seed {seed}: {found['rate'][-1]:.2f} times the evaluations per hour, hypervolume "
            f"{found['volume'][-1]:.3f} of one worker's after the same {len(alone)} trials, 0.98 "
            f"of its front after {many_s:.0f} s and {many_trials} trials instead of {one_s:.0f} s "
            f"and {one_trials}: 1/{found['time'][-1]:.2f} of the time",
            flush=True,
        )
        for name, night, cards in (("one", one, 1), ("many", many, workers)):
            shares = ", ".join(
                f"{what} {100 * part / (cards * night.spent_s):.1f} %"
                for what, part in night.parts.items()
            )
            print(f"  {name}: of the cards' {night.spent_s:.0f} s {shares}", flush=True)
    medians = {name: statistics.median(values) for name, values in found.items()}
    print(
        f"{workers} workers beside one for {HOURS:g} h, median of {seeds}: {medians['rate']:.2f} "
        f"times the evaluations per hour (7.2 wanted), hypervolume {medians['volume']:.3f} (0.95), "
        f"time to 0.98 of the front 1/{medians['time']:.2f} (1/5) with {medians['trials']:.2f} "
        "times the trials"
    )


def front(seeds: int, workers: int = 8) -> None:
    """Print when many workers have shares of the front that one worker has after four hours."""
    shorter = []
    for seed in range(seeds):
        one = _night(FRONT, seed, 1)
        many = _night(FRONT.model_copy(update={"hours": BESIDE_HOURS}), seed, workers)
        alone, beside = one.grown(), many.grown()
        for share in (0.9, 0.95, 0.98):
            goal = share * alone[-1][1]
            (one_s, one_trials), (many_s, many_trials) = (
                _reached(g, goal) for g in (alone, beside)
            )
            print(
                f"seed {seed}: {share} of the front of {FRONT.hours:g} h after {many_s:.0f} s and "
                f"{many_trials} trials instead of {one_s:.0f} s and {one_trials}: "
                f"1/{one_s / many_s:.2f} of the time",
                flush=True,
            )
        shorter.append(one_s / many_s)
        print(
            f"  {many.per_hour / one.per_hour:.2f} times the evaluations per hour; in the end "
            f"{beside[-1][1] / alone[-1][1]:.3f} of its hypervolume",
            flush=True,
        )
    print(
        f"{workers} workers: 0.98 of one worker's front in 1/{statistics.median(shorter):.2f} of "
        f"the time (1/5 wanted), median of {seeds}"
    )


def _reached(grown: list[tuple[float, float]], goal: float) -> tuple[float, float]:
    """Return when a hypervolume was reached, s, and after how many trials."""
    found = ((at_s, n) for n, (at_s, volume) in enumerate(grown, 1) if volume >= goal)
    return next(found, (math.inf, math.inf))


def _night(spec: StudySpec, seed: int, cards: int) -> Night:
    ends: list[tuple[int, float]] = []

    class Clock(Recorder):
        def trial_ended(self, proposal: Any, result: Any, progress: Any) -> None:
            ends.append((proposal.number, progress.spent_s))

    with _new_store() as store:
        spec = spec.model_copy(update={"seed": seed, "cards": cards})
        asyncio.run(start_study(spec, store, Clock(), yes=True))
        rows = {t.number: t for t in store.trials("s")}
        probes = store.repeats.probes("s")
        spent_s = store.study("s").spent_s
    trials = []
    for number, at_s in ends:
        row = rows[number]
        metrics: Mapping[str, float] = {} if row.measurement is None else row.measurement.metrics
        kind, _, card = str(row.owner.card).rpartition(":")
        is_met = metrics.get(TPOT, math.inf) <= 25.0 and row.measurement is not None
        energy = metrics.get(ENERGY, math.inf) / card_factor(kind, int(card))
        trials.append((at_s, energy if is_met else math.inf, metrics.get(TPOT, math.inf)))
    took = [(row, row.timing) for row in (*rows.values(), *probes) if row.timing is not None]
    launches_s = sum(timing.launch_s or 0.0 for _, timing in took)
    all_s = sum(timing.elapsed_s for _, timing in took)
    defaults_s = sum(t.elapsed_s - (t.launch_s or 0.0) for row, t in took if row in probes)
    parts = {
        "launches": launches_s,
        "the default for each card": defaults_s,
        "trials": all_s - launches_s - defaults_s,
        "idle at the end": cards * spent_s - all_s,
    }
    return Night(trials, spent_s, parts)


SPACE = SearchSpace.model_validate(
    {
        "name": "cards",
        "flags": {"max_num_seqs": {"type": "power_of_two", "low": 8, "high": 512, "default": 256}},
        "device": {
            "power_limit_w": {"type": "int", "low": 200, "high": 700, "step": 25},
            "sm_clock_mhz": {"type": "int", "low": 600, "high": 1980, "step": 60},
        },
    }
)
GRID = [
    Configuration(flags={"max_num_seqs": s}, device={"power_limit_w": w, "sm_clock_mhz": c})
    for s, w, c in itertools.product(
        (8, 16, 32, 64, 128, 256, 512), range(200, 701, 25), range(600, 1981, 60)
    )
]
STUDY = StudySpec(model="m", slo=(f"{TPOT}<=25",), trials=32, checks=False)


def truth(configuration: Configuration) -> tuple[float, float]:
    """Return energy, J/token, and p99 TPOT, ms, of a made-up card."""
    seqs = float(configuration.flags.get("max_num_seqs", 256))
    limit = float(configuration.device.get("power_limit_w", 700.0)) / 700.0
    clock = float(configuration.device.get("sm_clock_mhz", 1980.0)) / 1980.0
    clock = min(clock, 0.35 + 0.75 * limit)  # a cap throttles
    dynamic = 0.35 + 0.65 * clock**2.4
    batch = 1.0 + 14.0 / seqs
    return 0.14 * batch * (dynamic + 0.22 / clock), (6.0 + 0.012 * seqs) * (
        0.45 + 0.55 / clock**1.4
    )


class Card(ScriptedEvaluator):
    """A card with a power of its own; windows have 1 % of noise, 2 % in latency.

    `raw` is what each of them ships, if anything.
    """

    def __init__(self, factor: float, seed: int, raw: RawRun | None = None) -> None:
        self._factor = factor
        self._raw = raw
        self._noise = np.random.default_rng(seed)
        super().__init__(self._measured)

    def _measured(self, configuration: Configuration, _: int) -> Measurement | Failure:
        energy, tpot = truth(configuration)
        a, b = self._noise.standard_normal(2)
        tpot *= 1.0 + 0.02 * b
        return measurement(
            energy_per_output_token_j=energy * self._factor * (1.0 + 0.01 * a),
            p99_tpot_ms=tpot,
            mean_tpot_ms=0.7 * tpot,
        )

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        took_s = 40.0 + 5.0 * float(self._noise.random())
        result = self.script(configuration, trial)
        return Evaluation(result, self._raw, (), Timing(took_s), is_virtual=True)

    async def probe(self, configuration: Configuration, repeat: int, run: LoadRun) -> Evaluation:
        return await self.evaluate(configuration, repeat)


def studies(count: int, workers: int = 8, each: int = 10) -> None:
    """Print how often the recommended configuration is the true best within 1 %, as it goes."""
    best_j = min(truth(c)[0] for c in GRID if truth(c)[1] <= 25.0 * 0.98)
    arms = {
        "with the card model, confirmed": (nullcontext, True),
        "with the card model, not confirmed": (nullcontext, False),
        "as if the cards were one, not confirmed": (_without_cards, False),
    }
    excess: dict[str, list[float]] = {name: [] for name in arms}
    for seed in range(count):
        for name, (arm, confirm) in arms.items():
            with arm():
                excess[name].append(_recommended(seed, workers, confirm=confirm) / best_j - 1.0)
        if (seed + 1) % each and seed + 1 < count:
            continue
        for name, values in excess.items():
            right = sum(e <= 0.01 for e in values)
            print(
                f"{name}: the true best within 1 % in {right} of {seed + 1} studies; excess energy "
                f"median {100 * statistics.median(values):.2f} %, worst {100 * max(values):.2f} %",
                flush=True,
            )


@contextmanager
def _without_cards() -> Iterator[None]:
    """Compare windows of different cards as if they were of one."""

    def as_they_are(data: Any, *_: Any) -> Any:
        return data

    with (
        mock.patch.object(posterior, "without_card_effects", as_they_are),
        mock.patch.object(confirmation_run, "on_mean_card", as_they_are),
        mock.patch("tuner.analysis.recommendation.recommend.card_figures", lambda *_: []),
    ):
        yield


def _recommended(seed: int, workers: int, *, confirm: bool) -> float:
    """Return the true energy of what one study recommends, J/token."""
    draw = random.Random(seed)
    factors = [1.0 + min(max(draw.gauss(0.0, 0.05), -0.1), 0.1) for _ in range(workers)]
    spec = STUDY.model_copy(update={"seed": seed, "confirm": confirm})
    with _new_store() as store:
        store.create_study(identity(spec))
        cards = [
            Worker(Card(f, 1000 * seed + k), replace(OWNER, card=f"card {k}"))
            for k, f in enumerate(factors)
        ]
        asyncio.run(_study(spec, store, Fleet(cards)))
        try:
            return truth(recommend(store, study="s").best.configuration)[0]
        except NoFeasibleConfigurationError:
            return math.inf


async def _study(spec: StudySpec, store: Store, fleet: Fleet) -> None:
    proposals = _proposals(spec, store)
    listener = Recorder()
    cards = CardBaselines("s", plan(), store, fleet, listener)
    costs = proposals.returns.expected_costs
    confirmation = (
        ConfirmationRun("s", spec, store, fleet, listener, costs) if spec.confirm else None
    )
    search = StudyRun("s", spec, store, proposals, fleet, listener, confirmation, None, cards)
    await search.run()
    if confirmation is not None:
        await confirmation.run(search.simplify)


def _proposals(spec: StudySpec, store: Store) -> Proposals:
    proposals = Proposals(
        OneWriterStorage(store.optuna_storage()),
        "s",
        SPACE,
        spec.slos,
        spec.objectives,
        spec.sampler,
        spec.seed,
        on_other_cards=lambda: default_elsewhere(
            store.repeats.probes("s"), spec.objectives, spec.slos
        ),
    )
    if not proposals.has_baseline:
        proposals.enqueue_baseline({"power_limit_w": 700, "sm_clock_mhz": 1980})
    return proposals


_TIMED = 4  # proposals


def scale(counts: tuple[int, ...] = (8, 16, 32, 64), each: int = 4) -> None:
    """Print the driver's CPU time per evaluation, by part, and how many workers it can serve.

    The proposals that are timed come after `each` evaluations of every worker, while all others
    are at work.
    """
    raw = asyncio.run(_raw_window())
    for workers in counts:
        evaluations = workers * each
        drawn = {"sampler": "random", "trials": evaluations, "confirm": False}
        spec = STUDY.model_copy(update=drawn)
        with _new_store() as store:
            store.create_study(identity(spec))
            fleet = Fleet(
                [
                    Worker(Card(1.0, k, raw), replace(OWNER, card=f"card {k}"))
                    for k in range(workers)
                ]
            )
            drawn_s, written_s = list[float](), list[float]()
            began_s = time.process_time()
            with (
                _timed(Proposals, "ask", drawn_s),
                _timed(Store, "save_measurement", written_s),
            ):
                asyncio.run(_study(spec, store, fleet))
            rest_s = (time.process_time() - began_s - sum(drawn_s)) / evaluations
            pending = _proposals(spec, store)
            for k in range(workers - _TIMED):
                pending.ask(Asker(f"card {k}", lambda _: False))
            search, asked_s = _proposals(STUDY, store), list[float]()
            with _timed(Proposals, "ask", asked_s):
                for k in range(workers - _TIMED, workers):
                    search.ask(Asker(f"card {k}", lambda _: False))
        asked = statistics.median(asked_s)
        print(
            f"{workers} workers after {evaluations} evaluations: a proposal takes {asked:.3f} s of "
            f"the driver's CPU, a write {1e3 * statistics.median(written_s):.1f} ms, all but the "
            f"proposal {1e3 * rest_s:.0f} ms; with evaluations of 60 s it can serve "
            f"{60.0 / (rest_s + asked):.0f} workers",
            flush=True,
        )


async def _raw_window() -> RawRun | None:
    """Return the raw records of one emulated window."""
    with tempfile.TemporaryDirectory() as folder:
        order = virtual_order(Path(folder))
        context = RunContext("here", Path(folder))
        here = make_evaluator(order.spec, order.plan, order.knobs, context)
        await here.prepare()
        return (await here.evaluate(Configuration(flags={"max_num_seqs": 64}), 0)).raw


@contextmanager
def _timed(owner: Any, name: str, took_s: list[float]) -> Iterator[None]:
    function = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        began_s = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            took_s.append(time.process_time() - began_s)

    with mock.patch.object(owner, name, timed):
        yield


def ray(evaluations: int = 20) -> None:
    """Print how much longer an evaluation takes through Ray than in this process."""
    with ray_cluster(gpus=1) as cluster, mock.patch.dict("os.environ", cluster.environment):
        from ray import shutdown as leave

        head = connect(cluster.address)
        print(asyncio.run(_overhead(evaluations, head)), flush=True)
        leave()


async def _overhead(evaluations: int, head: RayHead) -> str:
    with tempfile.TemporaryDirectory() as folder:
        order = virtual_order(Path(folder))
        remote = RemoteEvaluator(RayCarrier(order, Recorder(), "bench", "0", head, gpus=1))
        await remote.prepare()
        fast = Configuration(flags={"max_num_seqs": 64})
        await remote.evaluate(fast, 0)
        here = make_evaluator(order.spec, order.plan, order.knobs, RunContext("here", Path(folder)))
        await here.prepare()
        took: dict[str, list[float]] = {"here": [], "ray": []}
        for trial in range(evaluations):
            for name, evaluator in (("here", here), ("ray", remote)):
                began_s = time.monotonic()
                await evaluator.evaluate(fast, trial)
                took[name].append(time.monotonic() - began_s)
        await remote.close()
    medians = {name: statistics.median(values) for name, values in took.items()}
    return (
        f"an evaluation takes {medians['here']:.3f} s here and {medians['ray']:.3f} s through Ray: "
        f"{medians['ray'] - medians['here']:+.3f} s (at most 1 s wanted), median of {evaluations}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("speed", "front", "studies", "scale", "ray"))
    parser.add_argument("--count", type=int, help="seeds, studies, workers or evaluations")
    asked = parser.parse_args()
    if asked.part == "speed":
        speed(asked.count or 5)
    elif asked.part == "front":
        front(asked.count or 2)
    elif asked.part == "studies":
        studies(asked.count or 40)
    elif asked.part == "scale":
        scale((8, 16, 32, 64) if asked.count is None else (asked.count,))
    else:
        ray(asked.count or 20)


if __name__ == "__main__":
    main()
