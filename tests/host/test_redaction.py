"""What looks like a secret is taken out, and what does not is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuner.host.redaction import (
    HIDDEN,
    is_secret_name,
    redacted,
    redacted_json,
    take_secrets_out_of,
    without_secrets,
)

SECRET = "s3cr3t-Value.99"


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "VLLM_API_KEY",
        "PGPASSWORD",
        "DB_PASSWORD_FILE",
        "api_key",
        "OPENAI_API_KEY_2",
        "GOOGLE_CREDENTIALS",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "VLLM_CPU_KVCACHE_SPACE",
        "VLLM_SHARED_EXPERTS_STREAM_TOKEN_THRESHOLD",
        "VLLM_MAX_TOKENS_PER_EXPERT",
        "KEYBOARD",
        "max_num_batched_tokens",
    ],
)
def test_names_of_knobs_are_none(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://me:{SECRET}@db/tuner is down",
        f"http://u:{SECRET}@host:8000/v1/models",
        f"http://host/v1?api_key={SECRET}&x=1",
        f"vllm serve --api-key {SECRET} --port 1",
        f"--set HF_TOKEN={SECRET}",
        f"{{'HF_TOKEN': '{SECRET}', 'x': 1}}",
        f'"api_key": "{SECRET}"',
        f"Authorization: Bearer {SECRET}",
        f"password={SECRET}",
        "cannot read with hf_abcdefghijklmnopqrstu",
        "openai said sk-abcdefghijklmnopqrstuvw is wrong",
        "\x1b[31mhf_abcdefghijklmnopqrstu\x1b[0m",
        "Authorization: Basic dXNlcjphYmNkabcdefghij=",
        "Authorization: abcdefghijklm",
        "Basic dXNlcjpabcdefghijYWJj",
        "nvapi-abcdefghijklmnopqrstuv",
        "key AKIAABCDEFGHIJKLMNOP and abcdefghij".replace(" and abcdefghij", ""),
        f"https://x-{SECRET}@host/repo.git",
        "eyJhbGciOiJIUzI1NiJ9.eyJabcdefghijOiJ4In0.abcdefghij",
        f"token={SECRET}",
        f"MY_PASS={SECRET}",
        f"DB_AUTH={SECRET} x",
        f"GITHUB_PAT={SECRET}",
        f"password: 'two words {SECRET}'",
        "glpat-abcdefghijklmnopqrst",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "sk-proj-abcdefghijklmnopqrstuvw",
        f"x-api-key: {SECRET}",
        f"https://{SECRET}:x-oauth-basic@host/repo.git",
        "github_pat_abcdefghijklmnopqrstu_v",
        "-----BEGIN RSA PRIVATE KEY-----\nabcdefghij\n-----END RSA PRIVATE KEY-----",
        "postgresql://u@db/t?password=abcdefghij&sslmode=disable",
        f"non-default args: {{'model': 'm', 'api_key': ['{SECRET}', 'x']}}",  # as vLLM prints it
        f"Namespace(api_key=['{SECRET}'], port=1)",
        f"X-Api-Key: {SECRET}",
        f"X-Auth-Token: {SECRET}",
        f"Set-Cookie: sid={SECRET}; Path=/",
        f"https://bucket/m?X-Amz-Signature={SECRET}&x=1",
        f"https://ntfy.sh/topic?auth={SECRET}",
        f"accessToken={SECRET}",
        f'"clientSecret": "{SECRET}"',
        f"AccountName=x;AccountKey={SECRET}==",
        f"Password = {SECRET}",
        f"pwd={SECRET}",
        f"- name: HF_TOKEN\n  value: {SECRET}",
        f'{{"name": "HF_TOKEN", "value": "{SECRET}"}}',
        f"curl -u me:{SECRET} http://h",
        "gsk_abcdefghijklmnopqrstuvwxyz",
        "sk_live_abcdefghijklmnopqrst",
        "dckr_pat_abcdefghijklmnopqrst",
        "pypi-abcdefghijklmnopqrst",
        "hvs.abcdefghijklmnopqrst",
        "xapp-1-abcdefghij",
        "SG.abcdefghijklmnopqrst.abcdefghijklmnopqrst",
    ],
)
def test_a_secret_is_hidden(text: str) -> None:
    found = redacted(text)
    assert SECRET not in found and "abcdefghij" not in found
    assert HIDDEN in found


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "max_num_batched_tokens=2048, energy_per_output_token_j=0.31",
        "max_num_batched_tokens: 2048",
        "token=5, PATH=/usr/bin, basic information",
        "http://user@host/v1",
        "https://huggingface.co/Qwen/Qwen3-8B",
        "PWD=/root/work",
        "vllm.v1.core.sched.output: token=12",
        "http://127.0.0.1:8000/v1 refused the connection",
        "KeyError: 'model'",
        "the prompt has 12 tokens: too long",
        "trial 3: p99_tpot_ms<=50 @ 4 req/s",
        "sortKey=name, kv_cache_dtype='auto', stop_token_ids=[151645]",
        "monkey=banana, the key-value cache; key: 12",
        "name: tuner\n  value: 12",
        "python -u -m x:y and docker run --user 1000:1000 image",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_values_of_the_environment_are_hidden_wherever_they_stand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "plain-looking")
    monkeypatch.setenv("MY_SERVICE_TOKEN_LONG_PASSWORD", "plain-looking-too")
    assert redacted("a plain-looking-too b plain-looking") == f"a {HIDDEN} b {HIDDEN}"
    assert without_secrets("plain-looking", {"HOME": "plain-looking"}) == "plain-looking"


def test_data_is_redacted_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    data = {"HF_TOKEN": "x", "facts": [f"a {SECRET}", 1, None], "deep": {"n": 1.5, "ok": "ok"}}
    assert redacted_json(data) == {
        "HF_TOKEN": HIDDEN,
        "facts": [f"a {HIDDEN}", 1, None],
        "deep": {"n": 1.5, "ok": "ok"},
    }


def test_secrets_are_taken_out_of_a_file_that_another_program_wrote(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    environment = {"HF_TOKEN": "plain", "OTHER_TOKEN": "plain-and-long", "HOME": "/root"}
    for text in (b"", b"nothing in it, /root", b"\xff plain-and-long, plain!\n"):
        file.write_bytes(text)
        take_secrets_out_of(file, environment)
        assert file.read_bytes() == text.replace(b"plain-and-long, plain", b"***, ***")
    with pytest.raises(FileNotFoundError):
        take_secrets_out_of(tmp_path / "none", environment)


@pytest.mark.timeout(60)  # milliseconds; minutes if it were quadratic
@pytest.mark.parametrize("piece", ["a-", "SECRET", "a.b", "A_", " name: api_key ", "[\"'"])
def test_a_long_text_takes_no_time(piece: str) -> None:
    assert len(redacted(piece * 20_000)) >= 20_000
