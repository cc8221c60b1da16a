"""Where a notification goes: a webhook that takes JSON, or a command."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any, Protocol
from urllib.parse import urlsplit

from tuner.errors import UsageError
from tuner.report.notify.message import Message

_WEBHOOK_S, _COMMAND_S = 15.0, 60.0
_ONLY_TEXT = ("hooks.slack.com",)  # refuses a body with fields that it does not know


class Target(Protocol):
    """Somebody to tell; `name` can be shown, without secrets."""

    name: str

    def send(self, message: Message) -> str | None:
        """Send it; return why that failed, or None. Raises nothing, and takes a minute at most."""


def target(text: str) -> Target:
    """Return the webhook of a URL, else a command; raises `UsageError` for what cannot be one."""
    if "://" in text.split(" ")[0]:
        return Webhook(text)
    return Command(text)


class Webhook:
    """A URL that takes a POST with JSON. Its path may be a secret: only its host is shown."""

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:
            host = None
        if host is None or parts.scheme not in ("http", "https"):
            raise UsageError("--notify: a webhook begins with https:// or http:// and names a host")
        self.name = f"the webhook at {host}"
        self._url = url
        self._takes_only_text = host in _ONLY_TEXT

    def send(self, message: Message) -> str | None:
        """Post the message; an answer other than 2xx is a failure, and no redirect is followed."""
        body = message.to_json()
        sent = {"text": body["text"]} if self._takes_only_text else body
        request = urllib.request.Request(
            self._url,
            data=json.dumps(sent).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "tuner"},
            method="POST",
        )
        try:
            with _opener().open(request, timeout=_WEBHOOK_S):  # nosec B310
                return None
        except urllib.error.HTTPError as error:
            return f"it answered {error.code}"
        except (OSError, HTTPException, ValueError) as error:
            return type(error).__name__  # its text may hold the URL


class Command:
    """A command: the line is its stdin, the facts are in its environment; no shell reads it."""

    def __init__(self, text: str) -> None:
        try:
            self._words = shlex.split(text)
        except ValueError as error:
            raise UsageError(f"--notify: this is no command ({error})") from None
        if not self._words or shutil.which(self._words[0]) is None:
            raise UsageError(
                f"--notify: there is no command '{_shown(self._words)}' here; give one that is on "
                "the PATH, or the URL of a webhook, which begins with https://"
            )
        self.name = f"the command {self._words[0]}"

    def send(self, message: Message) -> str | None:
        """Run the command; a status other than 0 is a failure, and after a minute it is ended."""
        environment = {
            **os.environ,
            "TUNER_EVENT": message.event.value,
            "TUNER_STUDY": message.study or "",
            "TUNER_EXIT_CODE": str(message.exit_code),
            "TUNER_NOTIFICATION": json.dumps(message.to_json())[:100_000],
        }
        try:
            done = subprocess.run(
                self._words,
                input=f"{message.to_json()['text']}\n".encode(),
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_COMMAND_S,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return f"it took more than {_COMMAND_S:.0f} s"
        except (OSError, ValueError) as error:
            return type(error).__name__
        return None if done.returncode == 0 else f"it ended with status {done.returncode}"


def _shown(words: list[str]) -> str:
    """Return the first word; of a webhook without its https:// only the host."""
    first = words[0] if words else ""
    host, slash, _ = first.partition("/")
    return f"{host}/..." if slash and "." in host.strip(".") else first


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: the body is for this host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_NoRedirects)
