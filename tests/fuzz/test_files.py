"""Files that users write or bring: YAML, traces, and what the tuner itself has left on a disk."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.hostile import cases, changed, damaged, one_sentence_at_most, values
from helpers.trace_samples import SAMPLES
from hypothesis import given
from hypothesis import strategies as st

from tuner.devices.leases.lease_book import LeaseBook
from tuner.devices.leases.lease_files import (
    Lease,
    LimitSettings,
    lease_path,
    lease_text,
    read_entry,
)
from tuner.host.process import this_owner
from tuner.load.importers.import_workload import import_workload
from tuner.load.importers.reading import Reading
from tuner.load.importers.registry import TraceFormat, importer_named
from tuner.load.traces.trace_file import read_lines, read_trace
from tuner.load.workload import load_workload
from tuner.servers.guardian.run_records import registered
from tuner.spec.search_space import load_space
from tuner.spec.study import spec_from

ROOT = Path(__file__).parents[2]
SPACES = [p.read_text() for p in sorted((ROOT / "search_spaces").glob("*.yaml"))]
WORKLOADS = [p.read_text() for p in sorted((ROOT / "workloads").glob("*.yaml"))]
CONVERSATION = """
turns: {count: {distribution: uniform, min: 2, max: 4}, think_s: 1.0}
shared_prefix: {tokens: 64, groups: 4}
arrivals: {process: gamma, shape: 0.5}
"""
STUDY = """
model: Qwen/Qwen3-8B
workload: smoke
space: power
slo: ['p99_tpot_ms<=50', 'p99_ttft_ms<=500']
objective: [energy_per_output_token_j, 'output_throughput_tok_s:max']
trials: 3
hours: 0.5
request_rate: 0.7x
window_s: 3
sampler: gp
seed: 1
confirm: false
"""
SOURCES = {form: sample.content(2) for form, sample in SAMPLES.items()}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in itertools.pairwise("abcdefghi")
)
DEEP = "[" * 100_000
KNOBS = ["type", "low", "high", "step", "choices", "default", "flags", "fixed", "device", "kind"]
LEASE = json.loads(
    lease_text(
        Lease(
            "GPU-0", "H100", LimitSettings(610.0, None), LimitSettings(300.0, 1200),
            this_owner("night"), "2026-01-01T00:00:00+00:00",
        )
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def read_space(path: Path) -> None:
    space = load_space(str(path))
    space.distributions()
    space.sha256()


def read_workload(path: Path) -> None:
    workload = load_workload(str(path))
    for request in itertools.islice(workload.requests(), 3):
        assert request.output_tokens >= 1


def read_study(path: Path) -> None:
    spec = spec_from(path, {})
    assert spec.budget_s > 0
    assert spec.window_plan is not None


READERS: list[tuple[Callable[[Path], None], list[str]]] = [
    (read_space, SPACES),
    (read_workload, [*WORKLOADS, *(text + CONVERSATION for text in WORKLOADS)]),
    (read_study, [STUDY]),
]


def offer(read: Callable[[Path], object], path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with one_sentence_at_most():
        read(path)


@pytest.mark.parametrize(("read", "texts"), READERS, ids=["space", "workload", "study"])
def test_yaml_that_is_almost_right(
    folder: Path, read: Callable[[Path], None], texts: list[str]
) -> None:
    @cases()
    @given(damaged(texts))
    def run(content: bytes) -> None:
        offer(read, folder / "almost.yaml", content)

    run()


@pytest.mark.parametrize("read", [read for read, _ in READERS], ids=["space", "workload", "study"])
def test_yaml_of_any_structure(folder: Path, read: Callable[[Path], None]) -> None:
    names = [*KNOBS, "prompt_tokens", "output_tokens", "load", "model", "slo", "window_s", "trace"]

    @cases(0.5)
    @given(values(names))
    def run(value: object) -> None:
        offer(read, folder / "any.yaml", json.dumps(value).encode())

    run()


@cases(0.5)
@given(changed({"name": "s", "flags": {"a": {"type": "int", "low": 1, "high": 9, "step": 2},
       "b": {"type": "float", "low": 0.1, "high": 0.9, "step": 0.1, "log": False},
       "c": {"type": "choice", "choices": ["x", "y"], "default": "x"}},
       "device": {"power_limit_w": {"type": "power_of_two", "low": 8, "high": 512}}},
       KNOBS))  # fmt: skip
def test_knobs_of_any_value(folder: Path, content: bytes) -> None:
    offer(read_space, folder / "knobs.yaml", content)


@pytest.mark.fuzz
@pytest.mark.parametrize(
    "text",
    [BOMB, "[" * 600, "{" * 600, "&a [*a]", "a: 2001-13-45", "b: !!bool x", "c: !!timestamp x"],
)
@pytest.mark.parametrize("read", [read for read, _ in READERS], ids=["space", "workload", "study"])
def test_yaml_made_to_harm(folder: Path, read: Callable[[Path], None], text: str) -> None:
    for content in (text, f"model: m\nname: s\nflags: {{}}\nslo: &x\n{text}"):
        offer(read, folder / "harm.yaml", content.encode())


@pytest.mark.parametrize("field", ["slo", "choices", "objective", "default"])
def test_aliases_that_stand_for_gigabytes(folder: Path, field: str) -> None:
    use = f"{BOMB}{field}: *i\nname: s\nmodel: m\nflags: {{x: {{type: choice, {field}: *i}}}}\n"
    for read, _ in READERS:
        offer(read, folder / "bomb.yaml", use.encode())


def read_all(form: str) -> Callable[[Path], object]:
    return lambda path: list(importer_named(form).rows(path, Reading()))


@pytest.mark.parametrize("form", sorted(SOURCES))
def test_a_trace_of_others(folder: Path, form: str) -> None:
    @cases()
    @given(damaged([SOURCES[form], SOURCES[form] * 3]))
    def run(content: bytes) -> None:
        offer(read_all(form), folder / "trace", content)

    run()


@pytest.mark.parametrize("form", ["mooncake", "sharegpt", "jsonl"])
def test_a_trace_with_any_values(folder: Path, form: str) -> None:
    text = SOURCES[form]
    template = json.loads(text if form == "sharegpt" else text.splitlines()[0])
    whole = {"it": template}
    names = ["from", "value", "prompt", "messages", "timestamp", "hash_ids", "output_length"]

    @cases(0.5)
    @given(changed(whole, names))
    def run(content: bytes) -> None:
        line = json.dumps(json.loads(content)["it"]).encode()
        offer(read_all(form), folder / "values", line)

    run()


@pytest.mark.fuzz
@pytest.mark.parametrize("form", sorted(SOURCES))
def test_a_trace_made_to_harm(folder: Path, form: str) -> None:
    for text in (DEEP, '{"a":' * 100_000, "9" * 10_000, '"' * 100_000, "," * 100_000, "\x00" * 99):
        for content in (text, f"{SOURCES[form].splitlines()[0]}\n{text}"):
            offer(
                lambda path: list(importer_named(form).rows(path, Reading())),
                folder / "harm",
                content.encode(),
            )


@cases(0.5)
@given(data=st.data())
def test_a_trace_of_our_own(folder: Path, data: st.DataObject) -> None:
    out = folder / "own.yaml"
    if not out.exists():
        source = folder / "source"
        source.write_text(SOURCES[TraceFormat.MOONCAKE])
        import_workload(source, "mooncake", out)
        trace = next(p for p in folder.iterdir() if p.name.startswith("own") and p != out)
        (folder / "good").write_bytes(b"\n".join(line.encode() for _, line in read_lines(trace)))
    content = data.draw(damaged([(folder / "good").read_bytes().decode()]))
    offer(lambda path: list(read_trace(path)), folder / "own.jsonl", content)


@cases()
@given(content=st.one_of(damaged([json.dumps(LEASE)]), changed(LEASE, list(LEASE))))
def test_a_lease_file(folder: Path, content: bytes) -> None:
    state = folder / "state"
    state.mkdir(exist_ok=True)
    path = lease_path(state, "GPU-0")
    path.write_bytes(content)
    with one_sentence_at_most():
        entry = read_entry(path)
        assert entry is not None and (entry.lease is None) != (entry.problem is None)
        assert len(LeaseBook(state).entries()) == 1
        assert LeaseBook(state).of_run("another") == ()


@cases()
@given(content=st.one_of(damaged([json.dumps(LEASE)]), changed(LEASE, list(LEASE))))
def test_a_run_record(folder: Path, content: bytes) -> None:
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    (runs / "0123456789abcdef.json").write_bytes(content)
    with one_sentence_at_most():
        registered(folder)


def test_json_made_to_harm_is_no_lease_and_no_run(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for path in (lease_path(tmp_path, "GPU-0"), tmp_path / "runs" / "0.json"):
        path.write_text(DEEP)
    entry = read_entry(lease_path(tmp_path, "GPU-0"))
    assert entry is not None and entry.lease is None
    assert registered(tmp_path) == ()
