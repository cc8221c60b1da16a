from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import yaml

from tuner.errors import UsageError
from tuner.load.workload import Workload, load_workload
from tuner.records import GenerationRequest

FIELDS = {
    "description": "for a test",
    "generation": {
        "output": "image",
        "sizes": [{"height": 64, "width": 64, "share": 3}, {"height": 128, "width": 64}],
        "steps": 4,
    },
    "load": {"concurrency": 2},
}


def written(folder: Path, **generation: object) -> Path:
    path = folder / "pictures.yaml"
    fields = {**FIELDS, "generation": {**FIELDS["generation"], **generation}}  # type: ignore[dict-item]
    path.write_text(yaml.safe_dump(fields))
    return path


def take(workload: Workload, count: int) -> list[GenerationRequest]:
    found = list(islice(workload.requests(), count))
    assert all(isinstance(request, GenerationRequest) for request in found)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize(("name", "units"), [("image", 1.0), ("video", 5.4)])
def test_shipped_workloads_ask_for_the_same_each_time(name: str, units: float) -> None:
    first, again = (take(load_workload(name), 70) for _ in range(2))
    assert [(r.prompt, r.seed, r.height, r.arrival_s) for r in first] == [
        (r.prompt, r.seed, r.height, r.arrival_s) for r in again
    ]
    assert {r.units for r in first} == {units}
    assert len({r.seed for r in first}) == 70
    assert [r.request_id for r in first] == list(range(70))


def test_a_block_of_representative_traffic_has_each_size_by_its_share(tmp_path: Path) -> None:
    workload = load_workload(str(written(tmp_path)))
    block = take(workload.representative(8), 8)
    assert Counter(r.height for r in block) == {64: 6, 128: 2}
    assert block[-1].arrival_s == pytest.approx(8.0)
    unseen = take(workload.unseen(0), 8)
    assert [r.seed for r in unseen] != [r.seed for r in take(workload, 8)]


def test_prompts_of_a_file_are_sent_in_their_order_and_hashed(tmp_path: Path) -> None:
    path = written(tmp_path, prompts="prompts.txt")
    (tmp_path / "prompts.txt").write_text("a red boat\n\na blue boat\n")
    first = load_workload(str(path))
    assert [r.prompt for r in take(first, 3)] == ["a red boat", "a blue boat", "a red boat"]
    (tmp_path / "prompts.txt").write_text("a red boat\na green boat\n")
    assert load_workload(str(path)).sha256 != first.sha256


def test_prompts_of_json_lines(tmp_path: Path) -> None:
    path = written(tmp_path, prompts="prompts.jsonl")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a boat", "id": 7}\n')
    assert take(load_workload(str(path)), 1)[0].prompt == "a boat"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("prompts.jsonl", '{"text": "a boat"}\n', "line 1: expected a JSON object with `prompt`"),
        ("prompts.jsonl", "[1", "line 1"),
        ("prompts.txt", "\n\n", "has no prompts"),
        ("prompts.txt", None, "cannot read the prompts"),
    ],
)
def test_a_bad_list_of_prompts_is_refused(
    tmp_path: Path, name: str, text: str | None, says: str
) -> None:
    path = written(tmp_path, prompts=name)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=says):
        load_workload(str(path))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"output": "video"}, "a video needs frames and fps"),
        ({"frames": 9, "fps": 8}, "an image has no frames"),
        ({"sizes": [{"height": 63, "width": 64}]}, "multiple of 8"),
        ({"prompts": "prompts.csv"}, "ends in .txt"),
    ],
)
def test_a_workload_that_cannot_be_is_refused(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        load_workload(str(written(tmp_path, **changes)))
