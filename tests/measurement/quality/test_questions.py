"""Questions: what their file may hold, and which answers are right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuner.errors import UsageError
from tuner.measurement.quality.questions import Question, read_questions


def asked(**fields: object) -> Question:
    return Question.model_validate({"prompt": "?", **fields})


@pytest.mark.parametrize(
    ("fields", "said", "right"),
    [
        ({"answer": "72"}, "She sold 48 in April, so 72 in all.", True),
        ({"answer": "72"}, "72 clips. No, wait: 24.", False),
        ({"answer": "He sold 48.\n#### 1,072"}, "That makes $1072.00", True),
        ({"answer": 3.5}, "3.50 miles.", True),
        ({"answer": "Paris"}, "The capital is PARIS, of course", True),
        ({"answer": "Paris"}, "Parisians live there", False),
        ({"answer": "C++"}, "I would use C++.", True),
        ({"regex": r"^\s*yes\b"}, " yes, it is", True),
        ({"regex": r"^\s*yes\b"}, "no", False),
        ({"answer": "7"}, "", False),
    ],
)
def test_an_answer_is_right_or_not(fields: dict[str, object], said: str, right: bool) -> None:
    assert asked(**fields).is_right(said) is right


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: it is not JSON"),
        ("[]", "line 2"),
        (json.dumps({"prompt": "a"}), "line 2: write either answer or regex"),
        (json.dumps({"prompt": "a", "answer": "b", "regex": "c"}), "either answer or regex"),
        (json.dumps({"answer": "b"}), "either prompt or messages"),
        (json.dumps({"prompt": "a", "regex": "("}), "is no regular expression"),
        (json.dumps({"prompt": "a", "answer": "b", "x": 1}), "line 2: x"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "quality.jsonl"
    path.write_text(json.dumps({"prompt": "a", "answer": 1}) + "\n" + line + "\n")
    with pytest.raises(UsageError, match=says):
        read_questions(path)


def test_a_file_of_questions(tmp_path: Path) -> None:
    path = tmp_path / "quality.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "hi"}], "answer": "x"}\n\n')
    (only,) = read_questions(path)
    assert not isinstance(only.asked, str)
    assert only.asked[0].content == "hi"
    path.write_text("\n")
    with pytest.raises(UsageError, match="has no questions"):
        read_questions(path)
    with pytest.raises(UsageError, match="cannot read"):
        read_questions(tmp_path / "none.jsonl")
