"""A number is the same wherever it is shown: table, JSON, CSV, pandas, exports and the report."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.stored_study import confirm
from rich.console import Console

import tuner
from tuner.analysis.recommendation.recommend import recommend
from tuner.analysis.report_data.report_data import read_report_data
from tuner.metrics import METRICS
from tuner.report.exports.deployment import deployment
from tuner.report.exports.export import EXPORTS, load_export
from tuner.report.frames import trial_rows, write_csv
from tuner.report.html.comparison import comparison
from tuner.report.html.page import page
from tuner.report.json_forms import recommendation_json, study_json
from tuner.report.labels import number, percent
from tuner.report.price import Price
from tuner.report.terminal.recommendation_table import show_recommendation
from tuner.report.terminal.study_tables import show_study
from tuner.store import Store, StudyIdentity

SHOWN = (
    "energy_per_output_token_j",
    "p99_tpot_ms",
    "p99_ttft_ms",
    "output_throughput_tok_s",
    "mean_power_w",
)
PRICE = Price(0.25, "EUR")


@pytest.fixture(params=["searched", "confirmed"])
def night(request: pytest.FixtureRequest, store: Store) -> Store:
    if request.param == "confirmed":
        confirm(store, (0.27, 48.0))
    return store


@pytest.fixture
def answer(night: Store) -> Any:
    """`tuner recommend --format json`, which the others are compared with."""
    return json.loads(json.dumps(recommendation_json(recommend(night), PRICE), allow_nan=False))


def shown_trials(answer: Any) -> dict[int, Any]:
    each = (answer["recommended"], *answer["alternatives"], answer["default"])
    return {trial["number"]: trial for trial in each}


def test_in_one_json_a_figure_is_its_metric(answer: Any) -> None:
    for trial in shown_trials(answer).values():
        for name in SHOWN:
            assert trial[name] == trial["metrics"][name]
        per_token_j = trial["energy_per_output_token_j"]
        assert trial["kwh_per_million_output_tokens"] == pytest.approx(per_token_j / 3.6, rel=1e-12)


def test_the_table(night: Store, answer: Any) -> None:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    show_recommendation(console, recommend(night), "", PRICE)
    assert isinstance(console.file, io.StringIO)
    output = console.file.getvalue()
    for trial in shown_trials(answer).values():
        rows = [line.split() for line in output.splitlines()]
        (cells,) = [row for row in rows if row[:1] == [str(trial["number"])]]
        for name in SHOWN:
            assert number(trial[name]) in cells, name
    best = answer["recommended"]
    assert f"{best['saving_percent']:.1f} % less energy" in output
    assert f"{best['changes_percent']['p99_tpot_ms']:+.1f} % against" in output
    money = answer["price"]["per_million_output_tokens"]
    for trial in (best, answer["default"]):
        kwh = number(trial["kwh_per_million_output_tokens"])
        assert f"{kwh} kWh, {number(money[str(trial['number'])])} EUR" in output
    if best["saving_interval_percent"] is None:
        assert percent(best["saving_percent"]) in output
    else:
        low, high = best["saving_interval_percent"]
        assert f"{low:.1f} to {high:.1f} %" in output


def test_csv_pandas_and_show(
    night: Store, answer: Any, identity: StudyIdentity, tmp_path: Path
) -> None:
    trials, repeats = night.trials("night"), night.repeats.of("night")
    write_csv(trial_rows(identity, trials, repeats), tmp_path / "night.csv")
    with (tmp_path / "night.csv").open(newline="") as file:
        exported = {int(row["number"]): row for row in csv.DictReader(file)}
    frame = tuner.load_study("night", store=night.shown).to_pandas().set_index("number")
    whole = {t["number"]: t for t in study_json(identity, trials, repeats, [])["trials"]}
    for trial in shown_trials(answer).values():
        n = trial["number"]
        for name in (*SHOWN, "saving_percent", "kwh_per_million_output_tokens"):
            assert float(exported[n][name]) == frame.at[n, name] == whole[n][name] == trial[name]
        assert (exported[n]["confirmed"] == "True") is trial["confirmed"]
    front = {n for n, row in exported.items() if row["on_front"] == "True"}
    assert front == {t["number"] for t in (answer["recommended"], *answer["alternatives"])}


def test_show(night: Store, answer: Any, identity: StudyIdentity) -> None:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    show_study(console, identity, night.trials("night"), night.repeats.of("night"), [])
    assert isinstance(console.file, io.StringIO)
    rows = [line.split() for line in console.file.getvalue().splitlines()]
    for trial in shown_trials(answer).values():
        (cells,) = [
            row for row in rows if row[:1] == [str(trial["number"])] and "measured" not in row
        ]
        for name in ("energy_per_output_token_j", "p99_tpot_ms"):
            assert number(trial[name]) in cells, name
        assert ("confirmed" if trial["confirmed"] else "front") in cells


def test_the_exports(night: Store, answer: Any) -> None:
    best = answer["recommended"]
    for form in EXPORTS:
        text = load_export(form)(deployment(recommend(night)))
        energy = f"energy_per_output_token_j: {number(best['energy_per_output_token_j'])}"
        assert energy in [line.strip(' ,"#') for line in text.splitlines()], form
        assert f"{best['saving_percent']:.1f} % less energy" in text, form
        assert f"trial {best['number']}" in text, form
        assert (re.search('[#"] ?confirmed by 2 measurements', text) is not None) is best[
            "confirmed"
        ], form


def test_the_table_of_the_html_report(night: Store, answer: Any) -> None:
    rows = re.findall(
        r'<tr class="[a-z]*"><th scope="row">.*?</tr>', comparison(read_report_data(night, "night"))
    )
    cells = [
        [re.sub("<[^>]*>", " ", c).split() for c in re.split("<td>|</button>", row)] for row in rows
    ]
    found = {int(row[0][0]): [words[0] for words in row[1:] if words] for row in cells}
    for n, trial in shown_trials(answer).items():
        for name in SHOWN:
            assert number(trial[name]) in found[n], name
        assert f"{trial['saving_percent']:.1f}" in found[n]


def test_the_html_report(night: Store, answer: Any) -> None:
    html = page(read_report_data(night, "night"))
    found = re.search(r'<script type="application/json" id="tuner-data">(.*?)</script>', html, re.S)
    assert found is not None
    data = json.loads(found[1])
    assert data["recommendation"] == {**answer, "price": None}
    trials = data["trials"]
    place = {number_: i for i, number_ in enumerate(trials["number"])}
    for n, trial in shown_trials(answer).items():
        for name in METRICS:
            column = trials["metrics"].get(name)
            value = None if column is None else column[place[n]]
            assert value == trial["metrics"].get(name), name
        for name, ends in data["intervals"].get(str(n), {}).items():
            assert [ends["low"], ends["high"]] == trial["intervals"][name]
    on_front = {n for n, i in place.items() if trials["front"][i]}
    assert on_front == {t["number"] for t in (answer["recommended"], *answer["alternatives"])}
