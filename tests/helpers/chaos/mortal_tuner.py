"""`tuner`, killed by SIGKILL a moment after it came to an instant for the n-th time.

Run as a process in place of `python -m tuner`; `CHAOS` in the environment says when (see `Plan`).
What is measured is real, but shown as figures that depend on the configuration alone, and every
point of the space is proposed once: so a night with kills can be compared with one without.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

import tuner.evaluation.launched.launched
import tuner.evaluation.launched.warm_server
import tuner.load.client.health
import tuner.servers.ready
from helpers.chaos.forks import serve_forks
from tuner.cli import main
from tuner.configuration import Configuration
from tuner.evaluation.evaluator import Evaluation
from tuner.measurement import load_run
from tuner.measurement.client_verdict import ClientVerdict
from tuner.records import Measurement
from tuner.servers.launch import LaunchPlan
from tuner.study.loop import StudyRun
from tuner.study.proposals.proposals import Proposals

IMPORTED_LATE = (
    *("tuner.api.runs", "tuner.devices.nvidia.nvml_meter", "tuner.servers.vllm.server"),
    *("tuner.report.terminal.progress", "tuner.report.terminal.preview.preview_table"),
    *("tuner.commands.run", "alembic.command", "optuna.storages", "psycopg"),
    *("sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql.psycopg"),
)
SILENCE_S = "CHAOS_SILENCE_S"  # for how long a server may be silent at the end of a load, s
PHASES = ("ask", "launch", "measure", "tell", "restore")


@dataclass(frozen=True)
class Plan:
    """Die `delay_s` after `phase` began for the `occurrence`-th time; a phase of None: live.

    "restore" is brought about by a SIGTERM in the middle of that measurement.

    `journal` gets a line for each phase and each evaluation that began, and for each one that was
    stored.
    """

    journal: str
    phase: str | None = None
    occurrence: int = 1
    delay_s: float = 0.0

    def to_text(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def figures(knobs: Mapping[str, object]) -> dict[str, float]:
    """What a configuration 'measures'."""
    digest = hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).digest()
    shares = [byte / 255 for byte in digest[:3]]
    return {
        "energy_per_output_token_j": 0.5 + shares[0],
        "output_throughput_tok_s": 1000.0 + 500.0 * shares[1],
        "p99_tpot_ms": 10.0 + shares[2],
    }


class EachPointOnce(optuna.samplers.BaseSampler):
    """Proposes the first point that is neither told, nor queued, nor under way."""

    def __init__(self, space: Mapping[str, Any]) -> None:
        names = sorted(space)
        values = itertools.product(*(space[name].choices for name in names))
        self._points = [dict(zip(names, point, strict=True)) for point in values]
        self._space = dict(space)

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return self._space

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        open_states = (TrialState.COMPLETE, TrialState.WAITING, TrialState.RUNNING)
        others = study.get_trials(deepcopy=False, states=open_states)
        used = [{**t.system_attrs.get("fixed_params", {}), **t.params} for t in others]
        return next(point for point in self._points if point not in used)

    def sample_independent(self, *_: Any) -> Any:
        raise AssertionError("every parameter is proposed with the others")


def note(path: Path, **what: object) -> None:
    """Add a line to the journal."""
    with path.open("a") as journal:
        journal.write(json.dumps(what) + "\n")


class _Bomb:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._met = 0

    def at(self, phase: str) -> None:
        """Come to the beginning of a phase."""
        note(Path(self._plan.journal), at=phase)
        if self._plan.phase == "restore" and phase == "measure" and self._is_due():
            os.kill(os.getpid(), signal.SIGTERM)  # which makes the tuner put everything back
            self._light()
        elif phase == self._plan.phase and self._is_due():
            self._light()

    def _light(self) -> None:
        if self._plan.delay_s == 0.0:
            os.kill(os.getpid(), signal.SIGKILL)
        kill = threading.Timer(self._plan.delay_s, os.kill, (os.getpid(), signal.SIGKILL))
        kill.daemon = True
        kill.start()

    def _is_due(self) -> bool:
        self._met += 1
        return self._met == self._plan.occurrence


def _before(owner: Any, name: str, phase: str, come_to: Callable[[str], None]) -> None:
    original = getattr(owner, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        come_to(phase)
        return original(*args, **options)

    setattr(owner, name, wrapped)


def _write_a_journal(path: Path) -> None:
    evaluate = tuner.evaluation.launched.launched.ServedEvaluator._evaluate
    record = StudyRun._record

    async def evaluated(self: Any, configuration: Configuration, get: Any, run: Any) -> Evaluation:
        note(path, began=configuration.knobs())
        found = await evaluate(self, configuration, get, run)
        if not isinstance(found.result, Measurement):
            return found
        metrics = {**found.result.metrics, **figures(configuration.knobs())}
        return dataclasses.replace(found, result=dataclasses.replace(found.result, metrics=metrics))

    def recorded(self: Any, proposal: Any, evaluation: Evaluation, passed_s: float) -> Any:
        result = record(self, proposal, evaluation, passed_s)
        if isinstance(result, Measurement):
            note(path, stored=proposal.number, metrics=dict(result.metrics))
        return result

    tuner.evaluation.launched.launched.ServedEvaluator._evaluate = evaluated  # type: ignore[method-assign]
    StudyRun._record = recorded  # type: ignore[method-assign]


def _be_quick() -> None:
    """Two cores are shared with the server and other tests: what is tested is something else."""
    load_run.judge_client = lambda *_: ClientVerdict(None, None)
    tuner.evaluation.launched.launched.COOL_DOWN_S = 0.2
    tuner.evaluation.launched.launched.BACK_OFF_S = (0.2,)
    tuner.servers.ready.SETTLE_S = 0.0
    tuner.evaluation.launched.warm_server.LaunchPlan = partial(  # type: ignore[assignment,misc]
        LaunchPlan, stop_grace_s=2.0
    )
    tuner.load.client.health._LEAST_SILENCE_S = float(os.environ.get(SILENCE_S, "0.5"))


def live() -> None:
    """Be `tuner` with the words of `sys.argv`, until the plan in the environment."""
    plan = Plan(**json.loads(os.environ["CHAOS"]))
    bomb = _Bomb(plan)
    _be_quick()
    _write_a_journal(Path(plan.journal))
    Proposals._sampler = lambda self, *_: EachPointOnce(  # type: ignore[method-assign]
        self._space.distributions()
    )
    _before(Proposals, "ask", "ask", bomb.at)
    _before(tuner.evaluation.launched.warm_server, "launched", "launch", bomb.at)
    _before(tuner.evaluation.launched.launched, "run_load", "measure", bomb.at)
    _before(StudyRun, "_record", "tell", bomb.at)
    main()


if __name__ == "__main__":
    if sys.argv[1:] == ["--fork-server"]:
        for name in IMPORTED_LATE:
            import_module(name)
        serve_forks(live)
    else:
        sys.argv[0] = "tuner"
        live()
