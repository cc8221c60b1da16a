"""Relations: read without running anything, and true where they cannot be told."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.configuration import UNSET
from tuner.spec.relations import Relation

KNOWN = ("a", "b", "c", "gpus", "spec.method")


def holds(text: str, **values: object) -> bool:
    named = {name.replace("__", "."): value for name, value in values.items()}
    return Relation.parse(text, KNOWN).holds(named)  # type: ignore[arg-type]


@given(st.integers(1, 16), st.integers(1, 16), st.integers(1, 64))
def test_a_product_is_compared_as_python_does(a: int, b: int, gpus: int) -> None:
    assert holds("a * b <= gpus", a=a, b=b, gpus=gpus) == (a * b <= gpus)
    assert holds("1 < a < b or b == 3", a=a, b=b) == (1 < a < b or b == 3)
    assert holds("a // 2 + -b % 3 != 4", a=a, b=b) == (a // 2 + -b % 3 != 4)


def test_options_and_fields() -> None:
    assert holds("spec.method in ('ngram', 'suffix') or a == 1", spec__method="mtp", a=1)
    assert not holds("spec.method in ('ngram', 'suffix')", spec__method="mtp")
    assert holds("not (c == true)", c=False)
    assert holds("spec.method == unset", spec__method=UNSET)


def test_what_cannot_be_told_holds() -> None:
    assert holds("a * b <= gpus", a=4, b=4)
    assert holds("a <= b", a=UNSET, b=4)
    assert holds("a / b < 1", a=1, b=0)
    assert not holds("a <= b and c == 1", a=UNSET, b=4, c=2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a * d <= gpus", "unknown knob 'd'"),
        ("a * b", "compares nothing"),
        ("a <=", "cannot be read"),
        ("__import__('os').system('true') == 0", "not allowed"),
        ("a ** 9999999 <= 3", "not allowed"),
        ("[x for x in (1, 2)] == a", "not allowed"),
        ("a == " + "1" * 600, "605 characters"),
    ],
)
def test_a_bad_relation_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Relation.parse(text, KNOWN)
