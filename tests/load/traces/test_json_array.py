from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuner.errors import UsageError
from tuner.load.traces.json_array import read_array

items = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(items, max_size=5), st.sampled_from([None, 1]), st.integers(0, 60))
def test_it_reads_what_json_reads_wherever_the_file_is_cut(
    tmp_path: Path, values: list[object], indent: int | None, moved: int
) -> None:
    """Blanks move the items over the end of the first megabyte that is read."""
    path = tmp_path / "array.json"
    text = json.dumps(values, indent=indent, ensure_ascii=False)
    blanks = " " * (2**20 - 1 - moved)
    path.write_bytes(("[" + blanks + text[1:]).encode("utf-8", "replace"))
    expected = json.loads(path.read_text())
    assert [value for _, value in read_array(path)] == expected


def test_a_number_cut_in_two_is_one_number(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    path.write_text("[" + " " * (2**20 - 3) + "1234]")
    assert list(read_array(path)) == [(1, 1234)]


def test_items_come_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "array.json"
    path.write_text('\ufeff[\n1,\n\n{"a":\n2}\n, 3]\n')
    assert list(read_array(path)) == [(2, 1), (4, {"a": 2}), (6, 3)]
    path.write_text("[1,\n2 3]")
    with pytest.raises(UsageError, match="line 2: expected a comma"):
        list(read_array(path))
