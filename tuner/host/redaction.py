"""Redaction: remove secrets from text before it reaches the store, a log or a report.

The rules are our own. detect-secrets 1.5.0 looks for secrets in source code and is no help in
removing them: its keyword rules need an assignment in quotes, its entropy rules take any word of a
single line for a secret, and for GitHub's and GitLab's tokens it returns only `ghp` and `glpat`. Of
17 forms that SECURITY.md promises to hide it hides two.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.host.plain_text import plain_text

HIDDEN = "***"
_SHORTEST_SECRET = 4

# TOKEN and KEY only at the end: vLLM has variables such as VLLM_…_TOKEN_THRESHOLD
_NAME = r"\w*(?:SECRET\w*|PASSWORD\w*|PASSWD\w*|PASSPHRASE\w*|CREDENTIAL\w*|TOKEN|KEY)(?:_?\d+)?"
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@'\"]*):([^\s/'\"]+)@", re.IGNORECASE)
# https://TOKEN@host or TOKEN:x-oauth-basic@, as git takes them; letters alone are a user's name
_URL_TOKEN = re.compile(
    r"(\bhttps?://)(?=[^\s/:@'\"]*[^a-z\s/:@'\"])[^\s/:@'\"]{8,}(?::[^\s/@'\"]*)?@", re.IGNORECASE
)
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
_SCHEME = re.compile(  # of an HTTP header: RFC 7617 and 6750
    r"(\bBearer\s+|\bAuthorization['\"]?\s*[:=]\s*['\"]?(?:\w+\s+)?|\bBasic\s+(?=[\w+/]{12,}))"
    r"[\w.~+/-]+=*",
    re.IGNORECASE,
)
# Values between quotes may hold blanks. Short names only in capitals, as of variables: PASS=x, and
# `token=x` only where a value of eight characters follows: vLLM's log has `token=5`.
_QUOTED = re.compile(
    rf"(['\"]?(?<![\w-]){_NAME}['\"]?\s*[=:]\s*)(['\"])((?:(?!\2).){{4,}})\2", re.IGNORECASE
)
_SHORT_NAMES = re.compile(
    r"(?<![\w-])((?:[A-Z0-9]+_)*(?:PASS|PASSWD|PWD|AUTH|PAT|SAS)=)(?![/.~])(['\"]?)([^\s'\",;&]{4,})"
)
_TOKEN = re.compile(
    r"(?<![\w-])((?:access_|auth_|id_|refresh_)?(?:token|apikey|sig)\s*[=:]\s*['\"]?)"
    r"(?=[^\s'\"]*[a-z])(?=[^\s'\"]*\d)([\w.~+/=-]{8,})",
    re.IGNORECASE,
)
# each form with where its maker describes it
_KNOWN_FORMS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"hf_[A-Za-z0-9]{16,}"  # huggingface.co/docs/hub/security-tokens
    r"|sk-[\w-]{16,}"  # platform.openai.com
    r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}"  # docs.github.com, token formats
    r"|glpat-[\w-]{16,}"  # docs.gitlab.com/security/tokens
    r"|nvapi-[\w-]{16,}"  # docs.nvidia.com/ngc
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"  # docs.aws.amazon.com, IAM identifiers
    r"|AIza[\w-]{35}"  # cloud.google.com/docs/authentication/api-keys
    r"|xox[abeoprs]-[\w-]{10,}"  # api.slack.com/concepts/token-types
    r"|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"  # a JWT, RFC 7519
    r")"
)
# what follows the host is the whole secret of a webhook: api.slack.com/messaging/webhooks,
# discord.com/developers/docs/resources/webhook, core.telegram.org/bots/api
_WEBHOOK = re.compile(
    r"(\bhttps?://(?:hooks\.slack\.com/|(?:\w+\.)?discord(?:app)?\.com/api/webhooks/"
    r"|[\w.-]*webhook\.office\.com/|api\.telegram\.org/bot))[^\s'\"]+",
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL
)


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
    such as HF_TOKEN=, --api-key or Bearer, and tokens of well-known forms. Control characters are
    taken out first: a colour in the middle would hide a secret.
    """
    text = without_secrets(plain_text(text), os.environ)
    text = _PRIVATE_KEY.sub(HIDDEN, text)
    text = _URL_TOKEN.sub(rf"\1{HIDDEN}@", text)
    text = _URL_PASSWORD.sub(rf"\1:{HIDDEN}@", text)
    text = _WEBHOOK.sub(rf"\1{HIDDEN}", text)
    text = _URL_QUERY.sub(rf"\1={HIDDEN}", text)
    text = _SCHEME.sub(rf"\1{HIDDEN}", text)
    text = _QUOTED.sub(rf"\1\2{HIDDEN}\2", text)
    text = _SHORT_NAMES.sub(rf"\1\2{HIDDEN}", text)
    text = _TOKEN.sub(rf"\1{HIDDEN}", text)
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
