"""Lists of prompts become workloads of images or videos."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tuner.cli import app
from tuner.errors import UsageError
from tuner.load.generations.import_prompts import import_prompts
from tuner.load.workload import load_workload
from tuner.records import GenerationRequest

SOURCES = {
    "list.txt": "a red boat\n\n  a blue boat\n",
    "list.jsonl": '{"prompt": "a red boat", "id": 3}\n{"prompt": "a blue boat"}\n',
    "list.csv": 'id,Prompt\n1,"a red boat"\n2,\n3,"a blue boat"\n',
    "list.tsv": "Prompt\tCategory\na red boat\tsea\na blue boat\tsea\n",
}


@pytest.mark.parametrize("name", SOURCES)
def test_each_form_gives_the_same_prompts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SOURCES[name])
    import_prompts(tmp_path / name, "video", tmp_path / "mine.yaml")
    workload = load_workload(str(tmp_path / "mine.yaml"))
    asked = list(islice(workload.requests(), 3))
    assert all(isinstance(one, GenerationRequest) for one in asked)
    assert [getattr(one, "prompt", "") for one in asked] == [
        "a red boat",
        "a blue boat",
        "a red boat",
    ]
    assert workload.spec.generation is not None
    assert workload.spec.generation.frames == load_workload("video").spec.generation.frames  # type: ignore[union-attr]


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(SOURCES["list.txt"])
    out = tmp_path / "mine.yaml"
    words = ["workload", "import", str(tmp_path / "list.txt"), "--out", str(out)]
    assert CliRunner().invoke(app, [*words, "--like", "image", "--limit", "1"]).exit_code == 0
    assert len((tmp_path / "mine.prompts.jsonl").read_text().splitlines()) == 1
    found = CliRunner().invoke(app, words)
    assert isinstance(found.exception, UsageError)


@pytest.mark.parametrize(
    ("name", "text", "like", "said"),
    [
        ("list.csv", "id,text\n1,a boat\n", "image", "expected a column 'prompt', found id, text"),
        ("list.jsonl", '{"prompt": 3}\n', "image", "line 1: expected a JSON object"),
        ("list.txt", "\n", "image", "has no prompts"),
        ("list.txt", "x" * 20_001, "image", "20000 are allowed"),
        ("list.txt", "a boat", "chat", "it asks for text"),
    ],
)
def test_what_is_no_list_is_refused_and_nothing_written(
    tmp_path: Path, name: str, text: str, like: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=said):
        import_prompts(tmp_path / name, like, tmp_path / "mine.yaml")
    assert [path.name for path in tmp_path.iterdir()] == [name]
