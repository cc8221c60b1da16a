from pathlib import Path

import pytest

from tuner.emulator.http.arguments import parse
from tuner.errors import UsageError


def test_vllms_spellings() -> None:
    arguments = parse(
        [
            "serve",
            "m",
            "--max-num-seqs=32",
            "--max_num_batched_tokens",
            "4096",
            "--gpu-memory-utilization=0.8",
            "--enforce-eager",
            "--no-enable-chunked-prefill",
            "--load-format",
            "dummy",
            "--skip-tokenizer-init",
            "--seed=7",
            "--disable-log-stats",
            "--no-enable-prefix-caching",
        ],
        "v",
    )
    assert arguments.configuration.flags == {
        "max_num_seqs": 32,
        "max_num_batched_tokens": 4096,
        "gpu_memory_utilization": 0.8,
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "enable_prefix_caching": False,
    }
    assert (arguments.model, arguments.served_model_name, arguments.seed) == ("m", "m", 7)


def test_what_is_not_given_stays_at_the_servers_default() -> None:
    arguments = parse(["serve", "m"], "v")
    assert arguments.configuration.flags == {}
    assert (arguments.gpu, arguments.devices) == ("H100-SXM", None)


@pytest.mark.parametrize(
    ("text", "tokens"), [("16k", 16_000), ("16K", 16_384), ("1.5k", 1500), ("4096", 4096)]
)
def test_a_number_with_a_unit(text: str, tokens: int) -> None:
    words = ["serve", "m", f"--max-model-len={text}", "--max-num-batched-tokens", text]
    flags = parse(words, "v").configuration.flags
    assert flags == {"max_model_len": tokens, "max_num_batched_tokens": tokens}


def test_the_longest_context() -> None:
    for text in ("auto", "-1"):
        flags = parse(["serve", "m", f"--max-model-len={text}"], "v").configuration.flags
        assert flags == {"max_model_len": -1}


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_EMULATED_GPU", "L4")
    monkeypatch.setenv("TUNER_EMULATED_DEVICES", "/tmp/gpus")
    arguments = parse(["serve", "m"], "v")
    assert (arguments.gpu, arguments.devices) == ("L4", Path("/tmp/gpus"))
    assert parse(["serve", "m", "--emulated-gpu", "L40S"], "v").gpu == "L40S"


def test_gpus_that_others_see_are_not_accelerated() -> None:
    with pytest.raises(UsageError, match="live in real time"):
        parse(["serve", "m", "--emulated-devices=x", "--emulated-speed=2"], "v")


def test_speed_must_be_positive() -> None:
    with pytest.raises(UsageError, match="--emulated-speed must be above 0"):
        parse(["serve", "m", "--emulated-speed=0"], "v")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-num-sequences", "3"], "unrecognized arguments: --max-num-sequences 3"),
        (["--max-num", "3"], "unrecognized arguments"),
        (["--max-num-seqs", "many"], "invalid int value: 'many'"),
        (["--max-num-seqs", "1k"], "invalid int value: '1k'"),  # not one of these flags of vLLM's
        (["--max-model-len", "1.5K"], "did you mean 1.5k (1500)?"),
        (["--enable-prefix-cache"], "unrecognized arguments"),
    ],
)
def test_unknown_flags_exit_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(["serve", "m", *words], "v")
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
