"""Redaction: remove secrets from text before it reaches the store, a log or a report."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HIDDEN = "***"
_SHORTEST_SECRET = 4

# TOKEN and KEY only at the end: vLLM has variables such as VLLM_…_TOKEN_THRESHOLD
_NAME = r"\w*(?:SECRET\w*|PASSWORD\w*|PASSWD\w*|PASSPHRASE\w*|CREDENTIAL\w*|TOKEN|KEY)(?:_?\d+)?"
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@'\"]*):([^\s/'\"]+)@", re.IGNORECASE)
_URL_QUERY = re.compile(rf"([?&]{_NAME})=([^\s&'\"#]+)", re.IGNORECASE)
_ASSIGNED = re.compile(
    # NAME=value and 'NAME': 'value'; in lower case only behind a prefix: api_key, hf-token
    r"(?<![\w-])((?:[A-Z0-9_]*(?:SECRET|PASSWORD|PASSWD|PASSPHRASE|TOKEN|KEY)"
    r"|(?:--)?(?:[A-Za-z0-9]+[_-])*(?:secret|password|passwd|passphrase)"
    r"|(?:--)?(?:[A-Za-z0-9]+[_-])+(?:token|key))['\"]?)(\s*[=:]\s*['\"]?)([^\s'\",;}\]&]+)"
)
_OPTION = re.compile(
    r"(--(?:[a-z0-9]+[_-])*(?:secret|password|passwd|passphrase|token|key))(\s+)(?!-)(\S+)"
)
_BEARER = re.compile(r"(\bBearer\s+)[\w.~+/-]+=*", re.IGNORECASE)
_KNOWN_FORMS = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{16,})")


def is_secret_name(variable: str) -> bool:
    """Say whether an environment variable's name suggests a token, password or key."""
    return _SECRET_NAME.fullmatch(variable) is not None


def without_secrets(text: str, environment: Mapping[str, str]) -> str:
    """Blank the values of variables that look like tokens or passwords by their name."""
    for value in _secrets_of(environment):
        text = text.replace(value, HIDDEN)
    return text


def take_secrets_out_of(path: Path, environment: Mapping[str, str]) -> None:
    """Apply `without_secrets` to a file that another program wrote; raises `OSError`."""
    if path.stat().st_size == 0:
        return
    secrets = [value.encode() for value in _secrets_of(environment)]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if all(content.find(secret) < 0 for secret in secrets):
            return
    known = path.read_bytes()
    for secret in secrets:
        known = known.replace(secret, HIDDEN.encode())
    path.write_bytes(known)


def _secrets_of(environment: Mapping[str, str]) -> list[str]:
    """Return the values of secrets, the longest first: one may be a part of another."""
    secrets = {
        value
        for name, value in environment.items()
        if len(value) >= _SHORTEST_SECRET and is_secret_name(name)
    }
    return sorted(secrets, key=len, reverse=True)


def redacted(text: str) -> str:
    """Return `text` without the secrets that this process knows or recognises.

    These are: the values of secrets in its own environment, passwords in URLs, values after a name
    such as HF_TOKEN=, --api-key or Bearer, and tokens of well-known forms.
    """
    text = without_secrets(text, os.environ)
    text = _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)
    text = _URL_QUERY.sub(rf"\1={HIDDEN}", text)
    text = _BEARER.sub(rf"\1{HIDDEN}", text)
    text = _ASSIGNED.sub(rf"\1\2{HIDDEN}", text)
    text = _OPTION.sub(rf"\1\2{HIDDEN}", text)
    return _KNOWN_FORMS.sub(HIDDEN, text)


def redacted_json(data: Any) -> Any:
    """Return JSON-ready data with every string, and every value of a secret name, redacted."""
    if isinstance(data, str):
        return redacted(data)
    if isinstance(data, Mapping):
        return {
            name: HIDDEN
            if isinstance(value, str) and is_secret_name(str(name))
            else redacted_json(value)
            for name, value in data.items()
        }
    if isinstance(data, list | tuple):
        return [redacted_json(value) for value in data]
    return data
