import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tuner.catalog.gpu import load_gpu
from tuner.emulator.__main__ import main
from tuner.emulator.http.served_devices import create_devices

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
Start = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def launch(*words: str, **environment: str) -> tuple[subprocess.Popen[str], str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "tuner.emulator", "serve", MODEL, "--port", str(port)]
        process = subprocess.Popen(
            [*command, "--served-model-name", "nonce", *words],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        started.append(process)
        return process, f"http://127.0.0.1:{port}"

    yield launch
    for process in started:
        process.kill()
        process.communicate()


def wait_until_healthy(process: subprocess.Popen[str], url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise AssertionError("not healthy in 20 s")


def complete(url: str, max_tokens: int) -> bytes:
    body = {"model": "nonce", "prompt": [1, 2], "max_tokens": max_tokens, "stream": True}
    body["ignore_eos"] = True
    request = urllib.request.Request(
        f"{url}/v1/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: bytes = response.read()
    return answer


def test_it_serves_and_sigterm_stops_it_cleanly(start: Start) -> None:
    process, url = start("--max-num-seqs=16", "--emulated-speed", "10")
    wait_until_healthy(process, url)
    assert complete(url, 5).endswith(b"data: [DONE]\n\n")
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=10)
    assert process.returncode == 0
    assert "shutdown complete" in log


def test_every_copy_of_a_data_parallel_server_answers_and_draws(
    start: Start, tmp_path: Path
) -> None:
    gpus = create_devices(tmp_path / "gpus", load_gpu("H100-SXM"), 5)
    process, url = start(
        "--data-parallel-size=2",
        "--tensor-parallel-size=2",
        TUNER_EMULATED_DEVICES=str(gpus.path),
    )
    wait_until_healthy(process, url)
    assert [d.pid for d in gpus.devices] == [process.pid] * 4 + [None]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: complete(url, 30), range(4)))
    assert all(answer.endswith(b"data: [DONE]\n\n") for answer in answers)
    now_s = time.monotonic()
    busy_s = [d.busy_s(now_s) for d in gpus.devices]
    assert min(busy_s[:4]) > 0.05
    assert busy_s[4] == 0
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
        page = response.read().decode()
    for engine in (0, 1):
        labels = f'engine="{engine}",model_name="nonce"'
        assert f"vllm:generation_tokens_total{{{labels}}} 60.0" in page
        assert f"vllm:time_to_first_token_seconds_count{{{labels}}} 2.0" in page
        (gaps,) = re.findall(f"vllm:inter_token_latency_seconds_count{{{labels}}} (.*)", page)
        assert 29 < float(gaps) <= 58  # tokens that a late step brings together are one
        assert f'vllm:e2e_request_latency_seconds_bucket{{{labels},le="+Inf"}} 2.0' in page
    process.kill()
    process.wait()
    assert [d.pid for d in gpus.devices] == [None] * 5


def test_more_gpus_than_there_are(start: Start, tmp_path: Path) -> None:
    gpus = create_devices(tmp_path / "gpus", load_gpu("H100-SXM"), 1)
    process, _ = start("--data-parallel-size=2", TUNER_EMULATED_DEVICES=str(gpus.path))
    _, log = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "World size (2) is larger than the number of available GPUs (1) in this node." in log


def test_sigterm_during_startup(start: Start) -> None:
    process, _ = start("--emulated-startup-s", "60")
    assert process.stderr is not None
    assert "Starting to load model" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_a_refused_launch_logs_vllms_words_and_exits_1(start: Start) -> None:
    begun_s = time.monotonic()
    process, _ = start("--gpu-memory-utilization", "0.1", "--emulated-startup-s", "0.5")
    _, log = process.communicate(timeout=20)
    assert process.returncode == 1
    assert time.monotonic() - begun_s > 0.5
    assert "ValueError: No available memory for the cache blocks." in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["--emulated-gpu", "H1000"], {}, "unknown GPU 'H1000'"),
        ([], {"TUNER_EMULATED_DEVICES": "/no/such"}, "the emulated GPUs cannot be used: [Errno 2]"),
    ],
)
def test_usage_errors_exit_2_with_one_sentence(
    words: list[str],
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["serve", MODEL, *words]) == 2
    assert message in capsys.readouterr().err


def test_a_port_in_use_exits_1(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", MODEL, "--port", str(port)]) == 1
    assert "address already in use" in caplog.text.lower()


def test_death_mid_stream(start: Start) -> None:
    process, url = start("--emulated-die-after-tokens", "20")
    wait_until_healthy(process, url)
    with pytest.raises((OSError, http.client.IncompleteRead)):
        complete(url, 500)
    process.communicate(timeout=10)
    assert process.returncode == 1


def test_engine_failure_mid_stream_still_answers_200(start: Start) -> None:
    process, url = start("--emulated-fail-after-tokens", "20")
    wait_until_healthy(process, url)
    answer = complete(url, 500)
    assert 1 <= answer.count(b"data: ") <= 30
    assert b"[DONE]" not in answer
    assert b'"finish_reason":"length"' not in answer
    assert complete(url, 5) == b""
    assert process.poll() is None


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == "0.0.0+emulator\n"


def test_a_client_that_goes_away_aborts_its_request(start: Start) -> None:
    process, url = start()
    wait_until_healthy(process, url)
    body = json.dumps(
        {"prompt": [1], "max_tokens": 9000, "ignore_eos": True, "stream": True}
    ).encode()
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        assert b"200 OK" in client.recv(4096)
        assert running(url) == 1
    deadline = time.monotonic() + 5
    while running(url) > 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(url: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    (line,) = [line for line in lines if line.startswith("vllm:num_requests_running{")]
    return float(line.rsplit(" ", 1)[1])
