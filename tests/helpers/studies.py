"""Running the command line as a user does: another process, its streams and its exit code."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tuner.cli import main
from tuner.errors import TunerError
from tuner.servers.processes import tagged_processes
from tuner.store import RepeatRow, Store, TrialRow

TINY_LLAMA = """{
  "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
  "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "vocab_size": 512,
  "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 2048,
  "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"
}"""


@dataclass(frozen=True)
class CommandLine:
    """`tuner` in a folder of its own.

    With `comes_first` it is never kept from a core, as far as that is allowed; its servers may be.
    `database` is the URL of a store on PostgreSQL, which is no option of every command.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    comes_first: bool = False
    database: str = ""

    @property
    def store_path(self) -> Path:
        return self.folder / "results" / "tuner.db"

    def start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tuner", *words],
            cwd=self.folder,
            env={**os.environ, "COLUMNS": "160", **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self.comes_first:
            let_come_first(process.pid)
        return process

    def __call__(self, *words: str, deadline_s: float = 100.0) -> subprocess.CompletedProcess[str]:
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{words} had not ended after {deadline_s:g} s:\n{err}") from None
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def tiny_model(self) -> Path:
        model = self.folder / "tiny"
        model.mkdir(exist_ok=True)
        (model / "config.json").write_text(TINY_LLAMA)
        return model

    def trials(self, study: str) -> list[TrialRow]:
        try:
            with Store.open(self.database or self.store_path, create=False) as store:
                return store.trials(study)
        except TunerError:
            return []  # not there yet

    def repeats(self, study: str) -> list[RepeatRow]:
        try:
            return Store.open(self.store_path, create=False).repeats.of(study)
        except TunerError:
            return []  # not there yet

    def failures(self, study: str) -> str:
        """What failed in a study and why, a line each, for a test that tells it."""
        rows = (*self.trials(study), *self.repeats(study))
        return "\n".join(f"{type(r).__name__} {r.number}: {r.failure}" for r in rows if r.failure)

    def run_tags(self, study: str) -> set[str]:
        return {t.owner.run_tag for t in self.trials(study)}

    def servers(self, study: str) -> list[int]:
        """The processes that runs of the study have left."""
        return [p.pid for tag in self.run_tags(study) for p in tagged_processes(tag)]


@dataclass(frozen=True)
class InProcess(CommandLine):
    """The same without a new interpreter for each command, which takes most of a second."""

    def __call__(self, *words: str, deadline_s: float = 100.0) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(sys, "argv", ["tuner", *words])
            for name, value in {"COLUMNS": "160", **self.environment}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        code = ended.value.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def let_come_first(pid: int) -> bool:
    """Let a process run before others on its core, but not what it starts; False if not allowed.

    A vLLM on two cores leaves the client waiting for up to two seconds now and then, although they
    are not busy all the time; a window in which that happens is thrown away, as it should be.
    """
    try:
        os.sched_setscheduler(pid, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        return False
    return True


def wait_for(
    condition: Callable[[], bool], deadline_s: float, told: Callable[[], str] = str
) -> None:
    """Ask again and again, and take at most a fifth of a core for it.

    `told` says what happened instead, for the message of the test.
    """
    asked_s = time.monotonic()
    end_s = asked_s + deadline_s
    while not condition():
        answered_s = time.monotonic()
        assert answered_s < end_s, f"the condition was not met in {deadline_s:g} s {told()}"
        time.sleep(max(0.05, 4.0 * (answered_s - asked_s)))
        asked_s = time.monotonic()
