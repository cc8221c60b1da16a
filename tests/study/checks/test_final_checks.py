"""Stress, idle power and headroom at the end of a study: measured once, kept, and acted upon."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from helpers.scripted import Recorder, ScriptedEvaluator, measurement, physics
from helpers.studies import InProcess
from helpers.testbed import OWNER, SPEC, Testbed
from sqlalchemy import update

import tuner
from tuner.analysis.deployment.checks import DeploymentChecks, deployment_checks
from tuner.analysis.recommendation.recommend import recommend
from tuner.configuration import Configuration
from tuner.evaluation.evaluator import Evaluation, LoadRun, MeasurementPlan
from tuner.evaluation.traffic import Traffic
from tuner.load.workload import load_workload
from tuner.measurement.steady_window import WindowPlan
from tuner.records import Failure, FailureKind, Load, Measurement, Timing
from tuner.slo import Slo
from tuner.spec.study import StudySpec, spec_from
from tuner.store import ProbeKind, RepeatKind, Store
from tuner.store.repeats import study_id_of
from tuner.store.schema import STUDIES
from tuner.study.checks.final_checks import FinalChecks
from tuner.study.checks.prober import Prober
from tuner.study.confirmation.run import ConfirmationRun
from tuner.study.durability import patience
from tuner.study.workers.fleet import Fleet
from tuner.study.workers.worker import Worker

STUDIED = Load(request_rate=4.0)
NIGHT = SPEC.model_copy(
    update={  # 256 requests at once have 69 ms, the default 37
        "request_rate": 4.0,
        "slos": (Slo.parse("p99_tpot_ms<=80"),),
        "trials": 16,
    }
)


def tpot_ms(configuration: Configuration, rate: float) -> float:
    """At 4 requests/s what `physics` says, and 1 / (capacity - rate) around it."""
    found = physics(configuration, 0)
    assert isinstance(found, Measurement)
    return found.metrics["p99_tpot_ms"] * 6.0 / (10.0 - rate) if rate < 10.0 else 1e6


class Probed(ScriptedEvaluator):
    """Answers probes by the load; `stress` says what happens under stress."""

    def __init__(self, stress: dict[int | None, Failure] | None = None) -> None:
        super().__init__()
        self.stress = stress or {}
        self.probed: list[tuple[Configuration, Load]] = []
        self.dies_at: int | None = None

    async def probe(self, configuration: Configuration, repeat: int, run: LoadRun) -> Evaluation:
        if self.dies_at == len(self.probed):
            raise KeyboardInterrupt
        self.probed.append((configuration, run.load))
        seqs = configuration.flags.get("max_num_seqs")
        result: Measurement | Failure
        if run.load.concurrency is not None:  # the study is an open loop
            passed = measurement(requests=50.0, preemptions=3.0, most_running=8.0)
            result = self.stress.get(None if seqs is None else int(seqs), passed)
        else:
            assert run.load.request_rate is not None
            found = tpot_ms(configuration, run.load.request_rate)
            result = measurement(energy_per_output_token_j=0.1, p99_tpot_ms=found)
        return Evaluation(result, None, (), Timing(10.0), is_virtual=True)

    async def idle(
        self, configuration: Configuration, repeat: int, window_s: float = 60.0
    ) -> Evaluation:
        found = measurement(idle_power_w=90.0)
        return Evaluation(found, None, (), Timing(70.0), is_virtual=True)


class Night:
    """A study whose final checks are run again and again."""

    def __init__(self, store: Store, evaluator: Probed) -> None:
        self.spec, self.store, self.evaluator = NIGHT, store, evaluator
        self.listener = Recorder()

    @property
    def checks(self) -> FinalChecks:
        plan = MeasurementPlan(
            "m",
            Traffic(load_workload("chat")),
            STUDIED,
            self.spec.slos,
            WindowPlan(window_s=60.0),
            Configuration(),
        )
        fleet = Fleet([Worker(self.evaluator, OWNER)])
        return FinalChecks(Prober("s", self.spec, plan, self.store, fleet, self.listener))

    def check(self) -> None:
        asyncio.run(self.checks.run())

    def checks_of(self, trial: int) -> DeploymentChecks:
        rows = self.store.repeats.every("s")
        return deployment_checks(rows, trial, self.spec.slos, STUDIED)


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a study of scripted trials and repeats, before its final checks."""
    folder = tmp_path_factory.mktemp("confirmed")
    with Store.open(folder / "tuner.db", create=True) as store:
        bed = Testbed(store, spec=NIGHT)
        bed.run()
        run = ConfirmationRun("s", NIGHT, store, bed.fleet, bed.listener)
        asyncio.run(run.run())
    return folder


def copied(confirmed: Path, folder: Path) -> Night:
    shutil.copytree(confirmed, folder, dirs_exist_ok=True)
    return Night(Store.open(folder / "tuner.db", create=False), Probed())


@pytest.fixture
def night(confirmed: Path, tmp_path: Path) -> Night:
    return copied(confirmed, tmp_path)


@pytest.fixture(scope="module")
def undisturbed(confirmed: Path, tmp_path_factory: pytest.TempPathFactory) -> Night:
    """A study whose final checks went through at once."""
    night = copied(confirmed, tmp_path_factory.mktemp("undisturbed"))
    night.check()
    return night


def truth(configuration: Configuration, bound_ms: float = 80.0) -> float:
    return 10.0 - tpot_ms(configuration, 4.0) * 6.0 / bound_ms


def test_the_headroom_of_the_recommendation_and_of_the_default(night: Night) -> None:
    night.check()
    found = recommend(night.store, study="s")
    assert not found.is_default
    for trial in (found.best, found.baseline):
        assert trial is not None
        checks = night.checks_of(trial.number)
        assert checks.headroom is not None and checks.headroom.holds is not None
        true = truth(trial.configuration)
        assert true / 1.051 <= checks.headroom.holds <= true * 1.001
        asked = [load for c, load in night.evaluator.probed if c == trial.configuration]
        assert len([load for load in asked if load.request_rate is not None]) <= 6
    best = night.checks_of(found.best.number)
    assert best.idle_power_w == 90.0
    assert best.stress is not None and best.stress.preemptions == 3.0
    assert night.store.repeats.of("s") == [
        r
        for r in night.store.repeats.every("s")
        if r.load is None and r.kind in (RepeatKind.BASELINE, RepeatKind.CONFIRMATION)
    ]


def test_what_is_measured_is_not_measured_again(night: Night) -> None:
    night.check()
    before = len(night.evaluator.probed)
    night.check()
    assert len(night.evaluator.probed) == before


@pytest.mark.parametrize("at", range(6))
def test_a_kill_loses_one_measurement(night: Night, undisturbed: Night, at: int) -> None:
    night.evaluator.dies_at = at
    with pytest.raises(KeyboardInterrupt):
        night.check()
    assert len(night.store.repeats.drop_running("s")) == 1
    night.evaluator.dies_at = None
    night.check()
    assert night.evaluator.probed == undisturbed.evaluator.probed
    best = recommend(night.store, study="s").best.number
    assert night.checks_of(best) == undisturbed.checks_of(best)


def test_a_busy_machine_is_waited_for(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, wait_s in (("FIRST_WAIT_S", 0.01), ("LONGEST_WAIT_S", 0.04), ("LOOK_S", 0.01)):
        monkeypatch.setattr(patience, name, wait_s)
    best = recommend(night.store, study="s").best
    busy = Failure(FailureKind.BUSY, "the client was late")
    seqs = int(best.configuration.flags["max_num_seqs"])
    left = [busy] * 4  # twice as often as another fault of the machine may come

    class Busy(dict[int | None, Failure]):
        def get(self, key: int | None, default: object = None) -> object:  # type: ignore[override]
            return left.pop() if key == seqs and left else default

    night.evaluator.stress = Busy()
    night.check()
    assert not left and night.checks_of(best.number).stress is not None
    assert [e.kind for e in night.store.events("s")].count("waiting") == 4


def test_who_fails_under_stress_is_not_recommended(night: Night) -> None:
    first = recommend(night.store, study="s").best
    out_of_memory = Failure(FailureKind.CONFIGURATION, "CUDA out of memory")
    night.evaluator.stress = {int(first.configuration.flags["max_num_seqs"]): out_of_memory}
    night.check()
    found = recommend(night.store, study="s")
    assert found.best.number != first.number
    said = f"trial {first.number} is off the front: under stress it failed (CUDA out of memory)"
    assert any(said in warning for warning in found.warnings)
    assert night.checks_of(found.best.number).headroom is not None
    assert night.checks_of(first.number).headroom is None


@pytest.mark.parametrize("deaths", [1, 2])
def test_dying_once_may_be_the_machines_fault(night: Night, deaths: int) -> None:
    first = recommend(night.store, study="s").best
    died = Failure(FailureKind.UNSTABLE, "the engine died")
    seqs = int(first.configuration.flags["max_num_seqs"])
    left = [died] * deaths

    class Dying(dict[int | None, Failure]):
        def get(self, key: int | None, default: object = None) -> object:  # type: ignore[override]
            return left.pop() if key == seqs and left else default

    night.evaluator.stress = Dying()
    night.check()
    assert (recommend(night.store, study="s").best.number == first.number) is (deaths == 1)


def store_spec(night: Night) -> None:
    with night.store.session() as session:
        own = STUDIES.c.id == study_id_of(session, "s")
        spec_json = night.spec.model_dump(mode="json")
        session.execute(update(STUDIES).where(own).values(spec_json=spec_json))


def test_headroom_that_is_asked_for_is_measured_and_decides(night: Night) -> None:
    asked = {"headroom": 1.3}
    plain = recommend(night.store, study="s").best
    assert truth(plain.configuration) < 1.3 * 4.0
    night.spec = night.spec.model_copy(update=asked)
    store_spec(night)
    night.check()
    found = recommend(night.store, study="s")
    assert found.best.number != plain.number
    assert truth(found.best.configuration) >= 1.3 * 4.0
    assert any("--headroom asks for 5.2" in warning for warning in found.warnings)


def test_headroom_that_is_asked_for_steers_the_confirmation(tmp_path: Path) -> None:
    """What misses an SLO there is not repeated, nor what would lose as much by that load."""
    asked = NIGHT.model_copy(update={"headroom": 1.3})
    with Store.open(tmp_path / "tuner.db", create=True) as store:
        bed = Testbed(store, spec=asked)
        bed.run()
        night = Night(store, Probed())
        night.spec = asked
        store_spec(night)
        fleet = Fleet([Worker(night.evaluator, OWNER)])
        run = ConfirmationRun("s", asked, store, fleet, bed.listener)
        asyncio.run(run.run(require=night.checks.required))
        fails = {t.number for t in store.trials("s") if truth(t.configuration) < 1.3 * 4.0}
        assert len(night.evaluator.probed) == 1 < len(fails)
        assert fails.isdisjoint(r.trial for r in store.repeats.of("s"))
        night.check()
        assert truth(recommend(store, study="s").best.configuration) >= 1.3 * 4.0


def test_hours_keep_a_tenth_for_the_checks() -> None:
    spec = StudySpec(model="m", hours=8.0)
    assert spec.checks_s == pytest.approx(0.8 * 3600.0)
    assert spec.before_checks().budget_s == pytest.approx(7.2 * 3600.0)
    for without in (
        spec.model_copy(update={"checks": False}),
        spec.model_copy(update={"confirm": False}),
    ):
        assert without.before_checks().budget_s == without.budget_s
    in_trials = StudySpec(model="m", trials=8)
    assert in_trials.before_checks() == in_trials


def test_what_is_left_after_the_checks_could_stress_another_recommendation(night: Night) -> None:
    night.spec = night.spec.model_copy(update={"hours": 8.0})
    assert night.checks.repeats_until_s is None  # nothing was checked
    night.check()
    until_s = night.checks.repeats_until_s
    assert until_s is not None
    assert until_s == pytest.approx(8.0 * 3600.0 - 1.1 * (10.0 + 70.0))
    night.spec = night.spec.model_copy(update={"loads": "1x"})
    assert night.checks.repeats_until_s is None  # operating points follow


def test_a_confirmation_that_was_stopped_is_checked_as_it_is(tmp_path: Path) -> None:
    """Without another repeat, and though the run made no checks."""
    store = str(tmp_path / "t.db")
    options = {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "emulate": "H100-SXM",
        "space": "power",
        "request_rate": 4,
        "slo": ["p99_tpot_ms<=30"],
        "trials": 2,
        "window_s": 10,
        "confirm_window_s": 10,
        "confirm_repeats": 2,
        "checks": False,
        "study": "s",
    }
    tuner.run(spec_from(None, options), store=store, yes=True)
    before = confirmed_repeats(store)
    assert before and not probes(store)
    tuner.resume("s", store=store, confirm=False, checks=True, trials=1)
    assert {ProbeKind.STRESS, ProbeKind.IDLE, ProbeKind.HEADROOM} <= probes(store)
    assert confirmed_repeats(store) == before


def confirmed_repeats(store: str) -> int:
    with Store.open(store, create=False) as opened:
        return len(opened.repeats.of("s"))


def probes(store: str) -> set[object]:
    with Store.open(store, create=False) as opened:
        return {row.kind for row in opened.repeats.probes("s")}


def test_the_command_line_shows_them(tmp_path: Path) -> None:
    tuner = InProcess(tmp_path)
    words = "--emulate H100-SXM --model Qwen/Qwen3-8B --workload chat --request-rate 4"
    slo = ["--slo", "p99_tpot_ms<=25", "--trials", "2", "--window-s", "10"]
    slo += ["--confirm-window-s", "10", "--confirm-repeats", "2"]
    slo += ["--sampler", "random", "--study", "night"]
    ran = tuner("run", *words.split(), "--space", "power", *slo)
    assert ran.returncode == 0, ran.stderr
    assert "stress of trial" in ran.stderr or "stress of the default" in ran.stderr
    text = " ".join(tuner("recommend").stdout.split())
    data = json.loads(tuner("recommend", "--format", "json").stdout)
    checks = data["checks"]
    assert checks["headroom"]["unit"] == "request_rate" and checks["headroom"]["holds"] > 0.0
    assert f"{checks['headroom']['holds']:.3g}" in text
    assert f"idle: {checks['idle_power_w']:.0f} W" in text
    assert f"stress: {checks['stress']['requests']:,} of the longest requests" in text
    again = tuner("resume", "night")
    assert again.returncode == 0 and "stress of" not in again.stderr
    with Store.open(tuner.store_path, create=False) as store:
        kinds = [p.kind for p in store.repeats.probes("night")]
    assert kinds.count(ProbeKind.STRESS) == kinds.count(ProbeKind.IDLE) == 1


def test_a_server_of_others_is_left_alone() -> None:
    spec = StudySpec(model="m", hours=8.0)
    assert spec.makes_checks
    assert not spec.model_copy(update={"base_url": "http://127.0.0.1:8000"}).makes_checks
