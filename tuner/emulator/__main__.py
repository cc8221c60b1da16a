"""`python -m tuner.emulator serve MODEL …`: a process that behaves like `vllm serve`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from tuner.catalog.gpu import Gpu, load_gpu
from tuner.catalog.model import ModelShape, load_model
from tuner.emulator.device_file import Device
from tuner.emulator.http.arguments import ServeArguments, parse
from tuner.emulator.http.served_devices import ServedDevices, open_devices
from tuner.emulator.http.served_engine import ServedEngine, ServedLimits
from tuner.emulator.http.served_replicas import ServedReplicas
from tuner.emulator.http.server import VERSION, run
from tuner.emulator.http.sleep import SleepMode
from tuner.emulator.refusal import LaunchRefusedError
from tuner.emulator.virtual import replicas_for
from tuner.errors import UsageError

LOG_FORMAT, DATE_FORMAT = "%(levelname)s %(asctime)s [emulator] %(message)s", "%m-%d %H:%M:%S"
_log = logging.getLogger("vllm")


def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=LOG_FORMAT,
        datefmt=DATE_FORMAT,
    )
    try:
        arguments = parse(argv, VERSION)
        return asyncio.run(_serve(arguments))
    except UsageError as error:
        sys.stderr.write(f"vllm serve (emulated): error: {error}\n")
        return error.exit_code


async def _serve(arguments: ServeArguments) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    model, gpu = load_model(arguments.model), load_gpu(arguments.gpu, arguments.engine)
    devices: tuple[Device, ...] = ()
    if arguments.devices is not None:
        devices = open_devices(arguments.devices, gpu).devices
        gpu = gpu.model_copy(update={"max_gpus": len(devices)})
    _log.info("Starting to load model %s...", arguments.model)
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), arguments.startup_s)
    try:
        limits = ServedLimits(arguments.scheduler_cls) if arguments.scheduler_cls else None
    except (ImportError, AttributeError, KeyError, OSError) as error:
        _log.error("%s: %s", type(error).__name__, error)
        return 1
    try:
        live = _started(arguments, model, gpu, limits, devices)
        _log.info("Starting vLLM server on http://%s:%d", arguments.host, arguments.port)
        sleep = SleepMode(model.loaded_bytes, arguments.speed) if arguments.can_sleep else None
        await run(live, arguments.served_model_name, arguments.host, arguments.port, stop, sleep)
    except LaunchRefusedError as error:
        say_refusal(error)
        return 1
    except OSError as error:
        _log.error("OSError: %s", error)
        return 1
    _log.info("Application shutdown complete.")
    return 0


def _started(
    arguments: ServeArguments,
    model: ModelShape,
    gpu: Gpu,
    limits: ServedLimits | None,
    devices: Sequence[Device],
) -> ServedReplicas:
    """Start every copy of the engine, each on the next GPUs of `devices` if there are any."""
    front = replicas_for(model, gpu, arguments.configuration, seed=arguments.seed, keep_log=False)
    each = front.launch.tensor_parallel_size
    return ServedReplicas(
        [
            ServedEngine(
                engine,
                speed=arguments.speed,
                after_step=_fault(arguments),
                limits=limits,
                devices=ServedDevices(gpu, devices[i * each : (i + 1) * each]) if devices else None,
            )
            for i, engine in enumerate(front.engines)
        ]
    )


def say_refusal(error: LaunchRefusedError) -> None:
    """Say it as vLLM does: the engine's process in the log, a check of flags in a traceback."""
    if error.is_of_engine:
        _log.error("EngineCore failed to start.\n%s", error.traceback())
        sys.stderr.write(
            "RuntimeError: Engine core initialization failed. See root cause above. "
            "Failed core proc(s): {}\n"
        )
    else:
        sys.stderr.write(error.traceback() + "\n")


def _fault(arguments: ServeArguments) -> Callable[[ServedEngine], None]:
    """Return what lets the process or its engine die after as many tokens as asked for."""
    die_after, fail_after = arguments.die_after_tokens, arguments.fail_after_tokens

    def check(live: ServedEngine) -> None:
        tokens = live.engine.counters.generation_tokens
        if die_after is not None and tokens >= die_after:
            os._exit(1)
        if fail_after is not None and tokens >= fail_after and not live.broken:
            _log.error("EngineCore encountered a fatal error.")
            live.break_down()

    return check


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
