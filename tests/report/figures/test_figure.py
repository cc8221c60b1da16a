from __future__ import annotations

import re
from importlib.resources import files

from tuner.report.figures.figure import LIGHT, layout, plain, resolved, wrapped


def test_the_light_palette_is_that_of_the_page() -> None:
    style = files("tuner.report.html").joinpath("page.css").read_text()
    first = dict(re.findall(r"(--[a-z]+): (#[0-9a-f]{6});", style.split("}")[0]))
    assert {name: first[name] for name in LIGHT} == dict(LIGHT)


def test_colours_are_resolved_wherever_they_are() -> None:
    made = resolved({"a": ["--good", {"b": "--ink"}], "c": 1, "d": "--unknown"})
    assert made == {"a": ["#0a7d55", {"b": "#17201c"}], "c": 1, "d": "--unknown"}
    assert "--" not in str(resolved(layout(xaxis={"title": {"text": "x"}})))


def test_names_become_no_markup() -> None:
    assert plain("<b>&") == "&lt;b&gt;&amp;"
    assert wrapped("<b> " * 30).count("<br>") == 1
