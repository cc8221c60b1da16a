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

# TOKEN and KEY only at the end: vLLM has variables such as VLLM_…_TOKEN_THRESHOLD; bounded, so that
# a long word takes no quadratic time
_NAME = (
    r"\w{0,80}(?:(?:SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL)\w{0,40}|TOKEN|KEY)(?:_?\d{1,9})?"
)
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_URL_PASSWORD = re.compile(
    r"(\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@'\"]*):([^\s/'\"]+)@", re.IGNORECASE
)
# https://TOKEN@host or TOKEN:x-oauth-basic@, as git takes them; letters alone are a user's name
_URL_TOKEN = re.compile(
    r"(\bhttps?://)(?=[^\s/:@'\"]*[^a-z\s/:@'\"])[^\s/:@'\"]{8,}(?::[^\s/@'\"]*)?@", re.IGNORECASE
)
_URL_QUERY = re.compile(
    rf"([?&](?:{_NAME}|[\w-]*(?:auth|pass|pwd|sig|signature|token|key)))=([^\s&'\"#]+)",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(
    # NAME=value and 'NAME': 'value'; a token or key in lower case only behind a prefix: api_key,
    # hf-token, X-Auth-Token
    r"(?<![\w-])((?:[A-Z0-9_]*(?:SECRET|PASSWORD|PASSWD|PASSPHRASE|TOKEN|KEY)"
    r"|(?:--)?(?:[A-Za-z0-9]+[_-])*(?i:secret|password|passwd|passphrase|credentials)"
    r"|(?:--)?(?:[A-Za-z0-9]+[_-])+(?i:token|key))['\"]?)(\s*[=:]\s*['\"]?)([^\s'\",;}\]&]+)"
)
# accessToken, AccountKey; of a key or token only what is long: sortKey=name stays
_CAMEL = re.compile(
    r"(?<![\w-])([A-Za-z][A-Za-z0-9]*(?:Secret|Password|Passphrase|(?:Token|Key)"
    r"(?=['\"]?\s*[=:]\s*['\"]?[^\s'\",;}\]&]{8}))['\"]?\s*[=:]\s*['\"]?)[^\s'\",;}\]&]+"
)
# vLLM prints its flag --api-key as 'api_key': ['…', '…']
_LISTED = re.compile(
    rf"((?<![\w-]){_NAME}['\"]?\s*[=:]\s*)([\[(])\s*['\"][^\])]*([\])])", re.IGNORECASE
)
# Kubernetes' and Docker's way to give a variable
_NAMED = re.compile(
    rf"(['\"]?\bname['\"]?\s*:\s*['\"]?{_NAME}['\"]?,?\s+['\"]?value['\"]?\s*:\s*['\"]?)"
    r"[^\s'\",}]+",
    re.IGNORECASE,
)
_COOKIE = re.compile(r"(\b(?:Set-)?Cookie['\"]?\s*:\s*)[^\n'\"]+", re.IGNORECASE)
_USER_OPTION = re.compile(
    r"((?:\s|^)(?:-u|--user)[\s=]+['\"]?[^\s:'\"/]+):(?!\d+\b)[^\s'\"]+"
)  # curl's
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
    r"(?<![\w-])((?:[A-Z0-9]+_)*(?:PASS|PASSWD|PWD|AUTH|PAT|SAS)=|pwd=)(?![/.~])(['\"]?)([^\s'\",;&]{4,})"
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
    r"|(?:sk|csk)-[\w-]{16,}"  # platform.openai.com; cloud.cerebras.ai
    r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}"  # docs.github.com, token formats
    r"|gl(?:pat|ptt|dt|rt|cbt|soat)-[\w-]{16,}"  # docs.gitlab.com/security/tokens
    r"|nvapi-[\w-]{16,}"  # docs.nvidia.com/ngc
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"  # docs.aws.amazon.com, IAM identifiers
    r"|AIza[\w-]{35}"  # cloud.google.com/docs/authentication/api-keys
    r"|(?:xox[abeoprs]|xapp)-[\w-]{10,}"  # api.slack.com/concepts/token-types
    r"|(?:npm|gsk|r8|fw)_[A-Za-z0-9]{20,}"  # npm; Groq; Replicate; Fireworks
    r"|(?:sk|rk|pk)_(?:live|test)_\w{16,}"  # docs.stripe.com/keys
    r"|(?:tgp_v1|wandb_v1|dop_v1|lin_api|dckr_pat)_[\w-]{16,}"  # Together, W&B, and others
    r"|pypi-[\w-]{16,}"  # a package index
    r"|hv[sb]\.[\w-]{16,}"  # developer.hashicorp.com/vault, tokens
    r"|ya29\.[\w-]{16,}"  # developers.google.com/identity, access tokens
    r"|dapi[0-9a-f]{32}"  # docs.databricks.com, personal access tokens
    r"|SG\.[\w-]{16,}\.[\w-]{16,}"  # docs.sendgrid.com
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
    text = _COOKIE.sub(rf"\1{HIDDEN}", text)
    text = _USER_OPTION.sub(rf"\1:{HIDDEN}", text)
    text = _LISTED.sub(rf"\1\2{HIDDEN}\3", text)
    text = _NAMED.sub(rf"\1{HIDDEN}", text)
    text = _QUOTED.sub(rf"\1\2{HIDDEN}\2", text)
    text = _SHORT_NAMES.sub(rf"\1\2{HIDDEN}", text)
    text = _TOKEN.sub(rf"\1{HIDDEN}", text)
    text = _CAMEL.sub(rf"\1{HIDDEN}", text)
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
