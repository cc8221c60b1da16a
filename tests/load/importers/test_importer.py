"""What every importer keeps: errors with their place, the memory of a row, the same rows again."""

from __future__ import annotations

import gzip
import json
import pkgutil
import tracemalloc
from importlib import import_module
from itertools import islice, pairwise
from pathlib import Path

import pytest
from helpers.trace_samples import SAMPLES, Write, refused, rows
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tuner.errors import UsageError
from tuner.load import importers
from tuner.load.importers.import_workload import import_workload
from tuner.load.importers.reading import Reading
from tuner.load.importers.registry import TimeUnit, TraceFormat, importer_named
from tuner.load.traces.trace_file import read_trace

AZURE = SAMPLES[TraceFormat.AZURE].header
every_format = pytest.mark.parametrize("form", TraceFormat)


def test_each_module_with_an_importer_is_registered_under_its_name() -> None:
    names = {module.name for module in pkgutil.iter_modules(importers.__path__)}
    modules = {name: import_module(f"{importers.__name__}.{name}") for name in names}
    assert {name for name, module in modules.items() if hasattr(module, "IMPORTER")} == {
        *TraceFormat
    }
    assert {*SAMPLES} == {*TraceFormat}


@every_format
def test_rows_are_the_same_every_time_and_hold_their_work(form: TraceFormat, write: Write) -> None:
    importer = importer_named(form)
    path = write(SAMPLES[form].content(20))
    found = rows(form, path)
    assert found == rows(form, path)
    assert len(found) == 20
    assert all(row.output_tokens >= 1 for row in found)
    assert all((row.prompt is None) != (row.prompt_tokens is None) for row in found)
    assert any(row.hash_ids for row in found) == (importer.block_tokens is not None)
    times_s = [row.arrival_s for row in found if row.arrival_s is not None]
    assert times_s == [] or (len(times_s) == 20 and times_s[0] == 0.0)
    assert all(earlier <= later for earlier, later in pairwise(times_s))


@every_format
def test_a_bad_row_names_its_place_and_is_read_only_when_it_is_due(
    form: TraceFormat, write: Write
) -> None:
    sample = SAMPLES[form]
    path = write(sample.content(5, sample.bad_row))
    assert len(list(islice(importer_named(form).rows(path, Reading()), 5))) == 5
    assert f"{sample.place} {sample.first_row_at + 5}: " in refused(form, path)


@every_format
def test_it_takes_the_memory_of_a_row(form: TraceFormat, write: Write) -> None:
    path = write(SAMPLES[form].content(3_000))
    for _ in islice(importer_named(form).rows(path, Reading()), 10):
        pass  # what is imported and allocated once
    tracemalloc.start()
    try:
        count = sum(1 for _ in importer_named(form).rows(path, Reading()))
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 3_000
    assert most_bytes < 1_000_000


@every_format
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_anything_is_refused(
    form: TraceFormat, content: str, write: Write, tmp_path: Path
) -> None:
    path = write(content)
    with pytest.raises(UsageError, match=r"has no requests|expected|no JSON array") as caught:
        import_workload(path, form, tmp_path / "x.yaml")
    assert str(path) in str(caught.value)


@every_format
def test_an_import_says_what_it_is_of(form: TraceFormat, write: Write, tmp_path: Path) -> None:
    importer = importer_named(form)
    workload = import_workload(write(SAMPLES[form].content(3)), form, tmp_path / "x.yaml")
    assert f"({form})" in workload.spec.sources[0]
    assert importer.caveat in workload.spec.sources[0]
    if importer.block_tokens is not None:
        assert workload.spec.trace is not None
        assert workload.spec.trace.block_tokens == importer.block_tokens


@every_format
def test_a_packed_file_is_unpacked(form: TraceFormat, tmp_path: Path) -> None:
    path = tmp_path / "source.gz"
    path.write_bytes(gzip.compress(SAMPLES[form].content(3).encode()))
    assert len(rows(form, path)) == 3
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot read" in refused(form, path)


@every_format
def test_a_source_that_is_not_there_is_named(form: TraceFormat, tmp_path: Path) -> None:
    assert "No such file" in refused(form, tmp_path / "none.csv")
    assert "Is a directory" in refused(form, tmp_path)


def test_an_unknown_format_is_told_the_known_ones() -> None:
    with pytest.raises(UsageError, match="allowed: azure, burstgpt, jsonl, mooncake, sharegpt"):
        importer_named("csv")


FIELDS = (
    *("timestamp", "input_length", "output_length", "hash_ids", "prompt", "messages"),
    *("output_tokens", "max_tokens", "role", "content", "from", "value"),
    *("conversations", "arrival_s", "prompt_tokens"),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)
lines = st.one_of(
    values.map(json.dumps),
    st.text(max_size=30),
    st.lists(
        st.one_of(
            st.integers().map(str),
            st.floats().map(str),
            st.datetimes().map(str),
            st.text('"\r,\0x', max_size=4),
        ),
        min_size=2,
        max_size=4,
    ).map(",".join),
)
files = st.one_of(
    st.binary(max_size=80),
    st.lists(lines, max_size=4).map("\n".join).map(lambda t: t.encode("utf-8", "replace")),
    st.lists(lines, max_size=4).map(
        lambda ls: (AZURE + "\r\n".join(ls)).encode("utf-8", "replace")
    ),
    st.lists(values, max_size=3).map(lambda v: json.dumps(v).encode()),
)


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    form=st.sampled_from(sorted([*TraceFormat, "own"])),
    content=files,
    reading=st.builds(
        Reading,
        st.none() | st.sampled_from(TimeUnit),
        st.none() | st.integers(1, 4096),
        st.booleans(),
    ),
)
@example(
    form="own",
    content=b'{"arrival_s":1,"prompt_tokens":1,"output_tokens":1}\n{"prompt":"x"}',
    reading=Reading(),
)
def test_no_file_however_odd_gives_anything_but_rows_or_a_usage_error(
    write: Write, form: str, content: bytes, reading: Reading
) -> None:
    path = write(content)
    try:
        found = list(
            read_trace(path) if form == "own" else importer_named(form).rows(path, reading)
        )
    except UsageError as error:
        assert str(path) in str(error)
        return
    for row in found:
        assert row.output_tokens >= 1
        assert (row.prompt is None) != (row.prompt_tokens is None)
        assert row.arrival_s is None or 0 <= row.arrival_s < float("inf")


@every_format
def test_bad_rows_are_left_out_and_counted_if_asked(form: TraceFormat, write: Write) -> None:
    sample = SAMPLES[form]
    good = sample.content(5)
    path = write(sample.content(5, sample.bad_row))
    reading = Reading(skip_invalid=True)
    assert list(importer_named(form).rows(path, reading)) == rows(form, write(good))
    assert [note for note in reading.notes() if "left out" in note] == [
        note for note in reading.notes() if note.startswith("1 rows were left out (the first: ")
    ]
    assert "--skip-invalid leaves out such rows" in refused(
        form, write(sample.content(5, sample.bad_row))
    )


def test_a_unit_or_block_that_a_format_does_not_have_is_refused(
    write: Write, tmp_path: Path
) -> None:
    path, out = write(SAMPLES[TraceFormat.AZURE].content(3)), tmp_path / "x.yaml"
    with pytest.raises(UsageError, match="--time-unit: the format azure"):
        import_workload(path, "azure", out, reading=Reading(time_unit=TimeUnit.MS))
    with pytest.raises(UsageError, match="--block-tokens: the format azure"):
        import_workload(path, "azure", out, reading=Reading(block_tokens=16))


def test_what_an_import_left_out_stands_in_the_workload(write: Write, tmp_path: Path) -> None:
    sample = SAMPLES[TraceFormat.BURSTGPT]
    path = write(sample.content(4, sample.bad_row))
    workload = import_workload(
        path, "burstgpt", tmp_path / "x.yaml", reading=Reading(skip_invalid=True)
    )
    assert any("1 rows were left out" in source for source in workload.spec.sources)
    assert workload.facts is not None and workload.facts.rows == 4
