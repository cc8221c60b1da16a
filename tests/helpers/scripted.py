"""A scripted evaluator on a real store and a real Optuna."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from optuna.trial import FrozenTrial

from tuner.configuration import Configuration, Value
from tuner.evaluation.evaluator import Evaluation, Testbed
from tuner.records import Failure, FailureKind, LoadSnapshot, Measurement, Source, Timing
from tuner.spec.search_space import SearchSpace
from tuner.store import RepeatKind
from tuner.study.confirmation.plan import Step
from tuner.study.listener import Progress
from tuner.study.proposals.proposals import Proposal

SPACE = SearchSpace.model_validate(
    {
        "name": "test",
        "flags": {
            "max_num_seqs": {"type": "power_of_two", "low": 1, "high": 256, "default": 128},
            "gpu_memory_utilization": {
                "type": "float",
                "low": 0.5,
                "high": 0.9,
                "step": 0.1,
                "default": 0.9,
            },
        },
    }
)


def measurement(**metrics: float) -> Measurement:
    return Measurement(metrics, 1.0, 2.0, Source.MEASURED, Source.EMULATED)


def infrastructure(reason: str = "memory held by somebody else") -> Failure:
    return Failure(FailureKind.INFRASTRUCTURE, reason)


def named_constraints(trial: FrozenTrial) -> dict[str, float]:
    """Return the constraints by name; a list of the same, for optuna-dashboard, has numbers."""
    named = {key: value for key, value in trial.constraints.items() if not key.isdigit()}
    assert list(named.values()) == trial.system_attrs["constraints"]
    return named


Script = Callable[[Configuration, int], Measurement | Failure]


def physics(configuration: Configuration, trial: int) -> Measurement | Failure:
    """More sequences: less energy, slower tokens."""
    seqs = float(configuration.flags.get("max_num_seqs", 128))
    return measurement(
        energy_per_output_token_j=8.0 / seqs + 0.1,
        p99_tpot_ms=5.0 + seqs / 4,
        p99_ttft_ms=100.0,
        output_throughput_tok_s=40 * seqs,
    )


class ScriptedEvaluator:
    """Answers from a function, and remembers what it was asked."""

    needs_guardian = False

    def __init__(self, script: Script = physics) -> None:
        self.script = script
        self.again: Script = script
        self.asked: list[tuple[int, Configuration]] = []
        self.confirmed: list[tuple[int, Configuration]] = []
        self.closed = 0

    async def prepare(self) -> Testbed:
        return Testbed("live", "1.0", "GPU", "555", Source.EMULATED, Source.MEASURED)

    async def defaults(self) -> Mapping[str, Value]:
        return {}

    async def evaluate(self, configuration: Configuration, trial: int) -> Evaluation:
        self.asked.append((trial, configuration))
        result = self.script(configuration, trial)
        return Evaluation(result, None, (), Timing(10.0), is_virtual=True)

    def is_warm_for(self, configuration: Configuration) -> bool:
        return False

    async def confirm(self, configuration: Configuration, repeat: int, traffic: int) -> Evaluation:
        self.confirmed.append((repeat, configuration))
        result = self.again(configuration, repeat)
        return Evaluation(result, None, (), Timing(10.0, 4.0), is_virtual=True)

    async def close(self) -> None:
        self.closed += 1


class Recorder:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.snapshots: list[LoadSnapshot] = []
        self.repeated: list[tuple[int, RepeatKind]] = []
        self.ended: list[tuple[int, Measurement | Failure]] = []
        self.shares: list[float] = []

    def study_started(self, name: str, progress: Progress) -> None:
        self.shares.append(progress.share)

    def trial_started(self, proposal: Proposal) -> None:
        pass

    def trial_ended(
        self, proposal: Proposal, result: Measurement | Failure, progress: Progress
    ) -> None:
        self.ended.append((proposal.number, result))
        self.shares.append(progress.share)

    def repeat_ended(self, step: Step, result: Measurement | Failure) -> None:
        self.repeated.append((step.trial.number, step.kind))

    def load_sampled(self, snapshot: LoadSnapshot) -> None:
        self.snapshots.append(snapshot)

    def note(self, message: str) -> None:
        self.notes.append(message)
