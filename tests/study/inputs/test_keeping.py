from __future__ import annotations

from pathlib import Path

import yaml

from tuner.load.workload import load_workload
from tuner.spec.search_space import load_space
from tuner.spec.study import StudySpec
from tuner.study.inputs.keeping import TRACE, WORKLOAD, files_to_keep


def test_the_prompts_of_images_are_kept_beside_their_workload(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "prompts.txt").write_text("a red boat\n")
    fields = {
        "description": "for a test",
        "generation": {
            "output": "image",
            "sizes": [{"height": 64, "width": 64}],
            "steps": 4,
            "prompts": "lists/prompts.txt",
        },
        "load": {"concurrency": 2},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(fields))
    spec = StudySpec(
        model="stabilityai/stable-diffusion-3.5-medium", workload=str(tmp_path / "mine.yaml")
    )
    kept = {file.role: file for file in files_to_keep(spec, load_space("diffusion"))}
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for role in (WORKLOAD, TRACE):
        (elsewhere / kept[role].name).write_bytes(kept[role].content)
    workload = load_workload(str(elsewhere / "mine.yaml"))
    assert next(workload.requests()).prompt == "a red boat"  # type: ignore[attr-defined]
