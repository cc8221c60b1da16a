from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, Field

from tuner.catalog.yaml_files import find_yaml, read_yaml
from tuner.errors import UsageError


class Example(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    size: int = Field(ge=1)
    slo: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nsize: 0\n", "size: found 0, input should be greater than or equal to 1"),
        ("name: a\n", "size: this field is required"),
        ("name: a\nsize: 1\nsiez: 2\n", "siez: there is no such field"),
        ("name: a\nsize: many\n", "size: found 'many', expected a whole number"),
        ("name: a\nsize: 1\nslo: fast\n", "slo: found 'fast', expected a list"),
        ("- a\n", "must hold a mapping"),
        ("", "must hold a mapping"),
        ("name: [a\n", "is not YAML"),
        ("name: !!python/object/apply:os.system ['true']\n", "is not YAML"),
        (b"\xff\xfe\x00", "cannot read"),
    ],
)
def test_an_error_names_file_field_found_and_allowed(
    tmp_path: Path, text: str | bytes, says: str
) -> None:
    path = tmp_path / "example.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        read_yaml(path, Example)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_missing_file_and_a_misspelt_name_say_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        find_yaml("workloads", str(tmp_path / "none.yaml"))
    with pytest.raises(UsageError, match="did you mean 'chat'"):
        find_yaml("workloads", "chatt")
    assert find_yaml("search_spaces", "power").name == "power.yaml"
