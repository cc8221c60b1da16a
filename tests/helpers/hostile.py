"""Hostile input: text that is almost right, structures that are not, and a limit for each case."""

from __future__ import annotations

import json
import os
import signal
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tuner.errors import TunerError

CASES_VARIABLE = "FUZZ_CASES"  # per test; `make fuzz` sets it
FEW = 10
CASE_S = 10.0  # one case takes milliseconds
offered = array("b")  # one for each case so far

ODD_NUMBERS = [
    "0", "-1", "1e308", "-1e309", ".nan", ".inf", "NaN", "Infinity", "1e-400", "0x1F", "1_000",
    "9" * 25, "9" * 400, "9" * 5000, "4294967297", "-9223372036854775809", "1:30:00", "3.5",
]  # fmt: skip
ODD_WORDS = [
    "null", "~", "true", "no", "''", '"', "'", "[", "]", "{", "}", "&a", "*a", "<<: *a", "!!int x",
    "!!python/object/apply:os.system ['true']", "!!binary x", "!!timestamp 2001-99-99",
    "2001-13-45",
    "- - -", "? :", "---", "...", "\t", "\x00", "\x85", "\u2028", "\ud7ff", "\ufeff", "%YAML 9.9",
    "'*/x'", "../../etc/passwd", "$(true)", "{{7*7}}", "__import__('os')", "\r", "\r\n", "\n\n",
    "#",
    "[[[[[[[[", "a" * 300, "é" * 50, "data: [DONE]", "data: {}", "event: error", ":", "data:", "=",
]  # fmt: skip


def cases(share: float = 1.0) -> settings:
    """As many cases as asked for; a few where nobody asked."""
    asked = int(os.environ.get(CASES_VARIABLE, FEW))
    return settings(
        max_examples=max(3, round(asked * share)),
        derandomize=True,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),  # shrinking takes minutes
        suppress_health_check=list(HealthCheck),
    )


def damaged(texts: list[str]) -> st.SearchStrategy[bytes]:
    """One of the texts after some edits; rarely bytes that are no text at all."""
    pieces = st.sampled_from([*ODD_NUMBERS, *ODD_WORDS])
    edit = st.tuples(st.floats(0.0, 1.0), st.integers(0, 40), st.integers(0, 3), pieces)
    edited = st.builds(_edited, st.sampled_from(texts), st.lists(edit, min_size=1, max_size=6))
    return st.one_of(edited, edited, edited, st.binary(max_size=200))


def _edited(text: str, edits: list[tuple[float, int, int, str]]) -> bytes:
    for share, length, kind, piece in edits:
        at = round(share * len(text))
        cut = text[at : at + length]
        match kind:
            case 0:  # leave out
                text = text[:at] + text[at + length :]
            case 1:  # put in
                text = text[:at] + piece + text[at:]
            case 2:  # put in the place of
                text = text[:at] + piece + text[at + length :]
            case _:  # say twice
                text = text[:at] + cut + cut + text[at + length :]
    return text.encode("utf-8", errors="surrogatepass")


def values(names: list[str]) -> st.SearchStrategy[Any]:
    """Anything that JSON can hold, with the names that are looked for."""
    keys = st.one_of(st.sampled_from(names), st.text(max_size=6))
    leaves = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(),
        st.text(max_size=12),
        st.sampled_from([10**400, "GPU-0", 1, 2.0, [], {}]),
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=5)
        ),
        max_leaves=12,
    )


def changed(template: dict[str, Any], names: list[str]) -> st.SearchStrategy[bytes]:
    """JSON of the template with some of its values, however deep, replaced by anything."""

    def build(edits: list[tuple[int, Any]]) -> bytes:
        data = json.loads(json.dumps(template))
        for which, value in edits:
            places = list(_places(data))
            holder, key = places[which % len(places)]
            holder[key] = value
        return json.dumps(data).encode()

    edit = st.tuples(st.integers(0, 1000), values(names))
    return st.lists(edit, min_size=1, max_size=3).map(build)


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(data, dict | list):
        yield from ((data, key) for key in (data if isinstance(data, dict) else range(len(data))))
        for inner in data.values() if isinstance(data, dict) else data:
            yield from _places(inner)


@contextmanager
def one_sentence_at_most() -> Iterator[None]:
    """A `TunerError` of one printable line may come out of it, nothing else; and it ends."""

    def too_slow(_number: int, _frame: object) -> None:
        raise AssertionError(f"not done after {CASE_S} s of computing")

    offered.append(1)
    before = signal.signal(signal.SIGPROF, too_slow)
    signal.setitimer(signal.ITIMER_PROF, CASE_S)  # a machine that is busy is no fault
    try:
        yield
    except TunerError as error:
        text = str(error)
        assert text and len(text) < 2000, text[:300]
        assert "Traceback" not in text
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
