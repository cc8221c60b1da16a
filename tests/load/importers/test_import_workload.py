from __future__ import annotations

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from tuner.errors import UsageError
from tuner.load.importers.import_workload import import_workload
from tuner.load.workload import load_workload
from tuner.records import Load

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:15:{second:02},{100 + second},{1 + second}\n" for second in range(60)
)


def left(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.fixture
def azure(tmp_path: Path) -> Path:
    path = tmp_path / "azure.csv"
    path.write_text(AZURE)
    return path


def test_what_is_imported_is_a_workload(azure: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "mine.yaml"
    workload = import_workload(azure, "azure", out)
    assert left(out.parent) == ["mine.jsonl.gz", "mine.yaml"]
    again = load_workload(str(out))
    assert (again.name, again.sha256) == ("mine", workload.sha256)
    assert again.default_load == Load(request_rate=1.0)
    assert again.spec.load.arrivals == "trace"
    assert again.max_request_tokens == 159 + 60
    assert [r.arrival_s for r in islice(again.requests(), 61)] == [float(i) for i in range(61)]
    assert any("azure.csv" in source for source in again.spec.sources)


def test_the_same_import_is_the_same_workload(azure: Path, tmp_path: Path) -> None:
    one = import_workload(azure, "azure", tmp_path / "a" / "x.yaml")
    other = import_workload(azure, "azure", tmp_path / "b" / "y.yaml")
    assert one.sha256 == other.sha256
    assert (tmp_path / "a/x.jsonl.gz").read_bytes() == (tmp_path / "b/y.jsonl.gz").read_bytes()


def test_a_limit_takes_the_first_rows(azure: Path, tmp_path: Path) -> None:
    azure.write_text(AZURE + "garbage beyond the limit\n")
    workload = import_workload(azure, "azure", tmp_path / "x.yaml", limit=10)
    assert workload.facts is not None
    assert workload.facts.rows == 10
    assert "the first 10" in workload.spec.sources[0]


def test_a_mooncake_trace_says_what_a_block_is(tmp_path: Path) -> None:
    source = tmp_path / "m.jsonl"
    row = {"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [5, 6]}
    source.write_text(json.dumps(row) + "\n" + json.dumps(row | {"timestamp": 500}))
    workload = import_workload(source, "mooncake", tmp_path / "x.yaml")
    assert workload.spec.trace is not None
    assert workload.spec.trace.block_tokens == 512
    assert workload.default_load == Load(request_rate=2.0)


def test_texts_are_a_closed_load(tmp_path: Path) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text('{"prompt": "hello", "max_tokens": 3}\n')
    workload = import_workload(source, "jsonl", tmp_path / "x.yaml")
    assert workload.default_load == Load(concurrency=64)


def test_a_malformed_source_leaves_nothing_behind(azure: Path, tmp_path: Path) -> None:
    azure.write_text(AZURE + "garbage\n")
    with pytest.raises(UsageError, match=r"azure.csv', line 62: "):
        import_workload(azure, "azure", tmp_path / "x.yaml")
    assert left(tmp_path) == ["azure.csv"]


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_source_without_requests_is_refused(tmp_path: Path, content: str) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text(content)
    with pytest.raises(UsageError, match="has no requests"):
        import_workload(source, "jsonl", tmp_path / "x.yaml")
    assert left(tmp_path) == ["t.jsonl"]


def test_nothing_is_overwritten(azure: Path, tmp_path: Path) -> None:
    for name in ("x.yaml", "x.jsonl.gz"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(UsageError, match=rf"{name}' exists"):
            import_workload(azure, "azure", tmp_path / "x.yaml")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()


def test_the_new_file_must_be_yaml(azure: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a YAML file, like workloads/azure\.yaml"):
        import_workload(azure, "azure", tmp_path / "x.json")


def test_a_folder_that_cannot_be_made_is_named(azure: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        import_workload(azure, "azure", azure / "x.yaml")


def test_a_large_file_needs_little_memory(tmp_path: Path) -> None:
    """30 MB of conversations, in a process that may grow by much less."""
    source = tmp_path / "big.json"
    words = "x" * 5000
    talk = [{"from": "human", "value": words}, {"from": "gpt", "value": "y" * 1000}]
    item = json.dumps({"conversations": talk})
    with source.open("w") as file:
        file.write("[")
        for _ in range(4_999):
            file.write(item + ",\n")
        file.write(item + "]")
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from tuner.load.importers.import_workload import import_workload\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "w = import_workload(Path(sys.argv[1]), 'sharegpt', Path(sys.argv[2]))\n"
        "assert w.facts.rows == 5_000\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(source), str(tmp_path / "big.yaml")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    grown_bytes = int(told) * 1024
    assert source.stat().st_size > 30_000_000
    assert grown_bytes < 12_000_000
