"""Questions with known answers: their file, and when an answer counts as right."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tuner.errors import UsageError
from tuner.records import Message, Prompt

_FINAL = "####"  # GSM8K writes the final answer behind it
_NUMBER = re.compile(r"[-+]?\$?\d[\d,]*(?:\.\d+)?")
_LONGEST_ANSWER = 20_000  # characters that are looked at, from the end
_MOST_QUESTIONS = 10_000


class _Role(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    role: str
    content: str


class Question(BaseModel):
    """A line of the file: `prompt` or `messages`, and `answer` or `regex`.

    An answer that is a number is right if it is the last number that was said; any other has to
    occur as words. Of an answer in the form of GSM8K what stands behind `####` counts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str | None = Field(default=None, min_length=1)
    messages: Annotated[tuple[_Role, ...], Field(min_length=1)] | None = None
    answer: str | None = Field(default=None, min_length=1)
    regex: str | None = Field(default=None, min_length=1)
    max_tokens: int = Field(default=512, ge=1, le=32768)

    @field_validator("answer", mode="before")
    @classmethod
    def _as_text(cls, answer: object) -> object:
        is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
        return str(answer) if is_number else answer

    @field_validator("regex")
    @classmethod
    def _compiles(cls, regex: str | None) -> str | None:
        try:
            re.compile(regex or "")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"'{regex}' is no regular expression: {error}") from None
        return regex

    @model_validator(mode="after")
    def _one_each(self) -> Question:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("write either prompt or messages")
        if (self.answer is None) == (self.regex is None):
            raise ValueError("write either answer or regex")
        return self

    @property
    def asked(self) -> Prompt:
        """The prompt as it is sent."""
        if self.prompt is not None:
            return self.prompt
        return tuple(Message(m.role, m.content) for m in self.messages or ())

    def is_right(self, said: str) -> bool:
        """Say whether an answer is right."""
        said = said[-_LONGEST_ANSWER:]
        if self.regex is not None:
            return re.search(self.regex, said) is not None
        assert self.answer is not None
        expected = self.answer.rpartition(_FINAL)[2].strip()
        number = _as_number(expected)
        if number is None:
            pattern = rf"(?<!\w){re.escape(expected)}(?!\w)"
            return re.search(pattern, said, re.IGNORECASE) is not None
        numbers = [_as_number(text) for text in _NUMBER.findall(said)]
        return bool(numbers) and numbers[-1] is not None and math.isclose(numbers[-1], number)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    text: str


def read_questions(path: Path) -> tuple[Question, ...]:
    """Read a JSONL file; raises `UsageError` naming the line."""
    questions: list[Question] = []
    for line in _lines(path):
        try:
            questions.append(Question.model_validate(json.loads(line.text)))
        except (ValueError, RecursionError) as error:
            said = _first(error) if isinstance(error, ValidationError) else "it is not JSON"
            raise UsageError(f"'{path}', line {line.number}: {said}") from None
        if len(questions) > _MOST_QUESTIONS:
            raise UsageError(f"'{path}' has more than {_MOST_QUESTIONS} questions; take a sample")
    if not questions:
        raise UsageError(f"'{path}' has no questions")
    return tuple(questions)


def _lines(path: Path) -> Iterator[_Line]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                if text.strip():
                    yield _Line(number, text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read '{path}': {error}") from None


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(map(str, problem["loc"]))
    said = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {said}" if where else said


def _as_number(text: str) -> float | None:
    try:
        value = float(text.strip().rstrip(".").replace(",", "").replace("$", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
