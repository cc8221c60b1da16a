"""The command line of the emulated server: `vllm serve`'s spelling, and a few flags of its own."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.configuration import Configuration, Value
from tuner.emulator.http.flag_numbers import as_number
from tuner.emulator.launch_rules import EMULATED_FLAGS
from tuner.errors import UsageError

GPU_VARIABLE = "TUNER_EMULATED_GPU"
ENGINE_VARIABLE = "TUNER_EMULATED_ENGINE"
DEVICES_VARIABLE = "TUNER_EMULATED_DEVICES"

# Flags of vLLM's that change nothing here: with a value, and without.
_HARMLESS_VALUES = ("load-format", "dtype", "generation-config", "uvicorn-log-level", "tokenizer")
_HARMLESS_SWITCHES = (
    "skip-tokenizer-init",
    "disable-log-stats",
    "disable-log-requests",
    "no-enable-log-requests",
    "disable-uvicorn-access-log",
    "trust-remote-code",
)
FLAGS_WITHOUT_EFFECT = frozenset(
    name.replace("-", "_") for name in (*_HARMLESS_VALUES, *_HARMLESS_SWITCHES)
)


@dataclass(frozen=True, slots=True)
class ServeArguments:
    """What `serve` was asked to do.

    `devices` is the file of the GPUs that other processes see (`device_file.py`), None for none.
    """

    model: str
    host: str
    port: int
    served_model_name: str
    configuration: Configuration
    gpu: str
    engine: str | None
    devices: Path | None
    speed: float
    startup_s: float
    seed: int
    scheduler_cls: str | None
    can_sleep: bool
    die_after_tokens: int | None
    fail_after_tokens: int | None


def parse(argv: Sequence[str], version: str) -> ServeArguments:
    """Read the command line and the environment; exits 2 as vLLM does for an unknown flag.

    Raises `UsageError` for what is spelt right and means nothing.
    """
    found = _parser(version).parse_args([_dashed(word) for word in argv])
    values = vars(found)
    flags: dict[str, Value] = {
        name: values[name] for name in EMULATED_FLAGS if values[name] is not None
    }
    if not (found.emulated_speed > 0 and found.emulated_startup_s >= 0):
        raise UsageError("--emulated-speed must be above 0 and --emulated-startup-s not below 0")
    devices = Path(found.emulated_devices) if found.emulated_devices else None
    if devices is not None and found.emulated_speed != 1:
        raise UsageError("--emulated-devices live in real time: leave --emulated-speed out")
    return ServeArguments(
        model=found.model,
        host=found.host,
        port=found.port,
        served_model_name=found.served_model_name or found.model,
        configuration=Configuration(flags=flags),
        gpu=found.emulated_gpu,
        engine=found.emulated_engine or None,
        devices=devices,
        speed=found.emulated_speed,
        startup_s=found.emulated_startup_s,
        seed=found.seed,
        scheduler_cls=found.scheduler_cls,
        can_sleep=bool(found.enable_sleep_mode),
        die_after_tokens=found.emulated_die_after_tokens,
        fail_after_tokens=found.emulated_fail_after_tokens,
    )


def _parser(version: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tuner.emulator", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", prog="vllm serve (emulated)", allow_abbrev=False)
    serve.add_argument("model")
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--served-model-name")
    serve.add_argument("--seed", type=int, default=0)
    serve.add_argument("--scheduler-cls")
    serve.add_argument("--enable-sleep-mode", action=argparse.BooleanOptionalAction)
    for name, kind in EMULATED_FLAGS.items():
        if kind is bool:
            serve.add_argument(_flag(name), action=argparse.BooleanOptionalAction)
        else:
            serve.add_argument(_flag(name), type=_reader(name, kind))
    for name in _HARMLESS_VALUES:
        serve.add_argument(f"--{name}")
    for name in _HARMLESS_SWITCHES:
        serve.add_argument(f"--{name}", action="store_true")
    serve.add_argument("--emulated-gpu", default=os.environ.get(GPU_VARIABLE, "H100-SXM"))
    serve.add_argument("--emulated-engine", default=os.environ.get(ENGINE_VARIABLE))
    serve.add_argument("--emulated-devices", default=os.environ.get(DEVICES_VARIABLE))
    serve.add_argument("--emulated-speed", type=float, default=1.0)
    serve.add_argument("--emulated-startup-s", type=float, default=0.0)
    serve.add_argument("--emulated-die-after-tokens", type=int)
    serve.add_argument("--emulated-fail-after-tokens", type=int)
    return parser


def _reader(name: str, kind: type) -> Callable[[str], Value]:
    """Return what reads a flag's text: also `16k` and `auto`, where vLLM takes them."""

    def read(text: str) -> Value:
        try:
            value: Value = kind(as_number(name, text))
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return value

    read.__name__ = kind.__name__  # argparse: invalid int value
    return read


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _dashed(word: str) -> str:
    """Spell the name of a flag with dashes, as vLLM's parser does."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value
