"""The report as a reader meets it. Screenshots are kept; their folder is printed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.browser import Page, chromium
from helpers.studies import InProcess

from tuner.analysis.report_data.report_data import read_report_data
from tuner.report.html.page import FIGURES, write_page
from tuner.report.html.png import write_pictures
from tuner.store import Store, StudyIdentity

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]

STUDY = ("--emulate", "H100-SXM", "--model", "meta-llama/Llama-3.1-8B-Instruct", "--space", "power")
LOAD = ("--workload", "chat", "--request-rate", "4", "--max-window-s", "20")
SLOS = ("--slo", "p99_tpot_ms<=25", "--slo", "p99_ttft_ms<=500")
DESKTOP, PHONE = (1280, 900), (390, 844)
IS_DRAWN = "document.getElementById('front').dataset.drawn === 'yes'"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tuner = InProcess(tmp_path_factory.mktemp("night"))
    ran = tuner("run", *STUDY, *LOAD, *SLOS, "--trials", "14", "--study", "night")
    assert ran.returncode == 0, ran.stderr
    assert tuner("report", "night").returncode == 0
    return tuner.folder / "results" / "night.html"


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with chromium(tmp_path / "profile") as opened:
        await opened.resize(*DESKTOP)
        yield opened
        assert opened.complaints == []


async def shown(page: Page, report: Path) -> None:
    await page.open(report.as_uri())
    await page.until(IS_DRAWN)


async def test_every_figure_is_drawn_and_nothing_leaves_the_file(page: Page, report: Path) -> None:
    await shown(page, report)
    for name in FIGURES:
        await page.eval(f"document.getElementById('{name}').scrollIntoView()")
        await page.until(f"document.getElementById('{name}').dataset.drawn === 'yes'")
        traces = await page.eval(f"document.getElementById('{name}').data.length")
        assert traces > 0, name
        drawn = f"#{name} .trace path, #{name} .point path, #{name} .js-line"
        await page.until(f"document.querySelectorAll('{drawn}').length > 0")
    assert [a for a in page.requests if not a.startswith(("file:", "data:"))] == []


async def test_hovering_a_point_tells_its_whole_configuration(page: Page, report: Path) -> None:
    await shown(page, report)
    look = "{block: 'center', behavior: 'instant'}"
    await page.eval(f"document.getElementById('front').scrollIntoView({look})")
    box = await page.eval(
        "(() => { const all = document.querySelectorAll('#front .scatterlayer .trace:last-child"
        " .point'); const r = all[0].getBoundingClientRect();"
        " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    await page.hover(*box)
    await page.until("document.querySelector('#front .hoverlayer .hovertext') !== null")
    text = await page.eval("document.querySelector('#front .hoverlayer').textContent")
    best = await page.eval("data.recommendation.recommended")
    assert f"trial {best['number']}" in text
    for section in best["configuration"].values():
        for knob, value in section.items():
            assert f"{knob}={value}" in text


async def test_the_filter_leaves_what_it_says(page: Page, report: Path) -> None:
    await shown(page, report)
    watts = await page.eval("trials.knobs.power_limit_w.filter((w) => w !== null)")
    bound = sorted(watts)[len(watts) // 2]
    await page.eval("document.getElementById('filter').focus()")
    await page.call("Input.insertText", text=f"power_limit_w<={bound}")
    wanted = sum(w <= bound for w in watts)
    count = "document.getElementById('count').textContent"
    await page.until(f"{count}.startsWith('{wanted} of ')")
    rows = await page.eval("document.querySelectorAll('#trial-table tbody tr').length")
    placed = "data.reduce((n, t) => n + (t.mode === 'markers' ? t.x.length : 0), 0)"
    points = await page.eval(f"document.getElementById('front').{placed}")
    assert rows == wanted
    assert 0 < points <= wanted
    await page.eval("document.getElementById('filter').value = 'no_such_knob'")
    await page.eval(
        "document.getElementById('filter').dispatchEvent(new Event('input', {bubbles: true}))"
    )
    await page.until(f"{count}.startsWith('0 of ')")


async def test_the_keyboard_alone_reaches_and_works_everything(page: Page, report: Path) -> None:
    await shown(page, report)
    reached = []
    for _ in range(40):
        await page.press("Tab", 9)
        reached.append(
            await page.eval("document.activeElement.id || document.activeElement.textContent")
        )
    assert reached[0] == "Skip to the answer"
    for wanted in ("theme", "axis-x", "filter", "show-missed", "zoom"):
        assert wanted in reached, reached
    await page.eval("document.querySelector('#comparison .pick').focus()")
    await page.press("Enter", 13, "\r")
    await page.until("document.activeElement.id === 'detail'")
    first = await page.eval("document.querySelector('#comparison .pick').dataset.trial")
    detail = await page.eval("document.getElementById('detail').textContent")
    assert detail.startswith(f"Trial {first}")
    await page.eval("document.querySelector('[data-sort=number]').focus()")
    await page.press("Enter", 13, "\r")
    top = "document.querySelector('#trial-table tbody th').textContent"
    last = await page.eval("String(Math.max(...trials.number))")
    await page.until(f"{top} === '{last}'")


async def test_light_dark_and_a_phone(page: Page, report: Path, tmp_path: Path) -> None:
    looks = [("light", DESKTOP, "light"), ("dark", DESKTOP, "dark"), ("phone", PHONE, "light")]
    papers = {}
    for name, size, scheme in looks:
        await page.resize(*size, phone=name == "phone")
        await page.prefer(scheme)
        await shown(page, report)
        await page.eval("Object.keys(FIGURES).forEach(draw)")
        wide = await page.eval("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{name}: the page is wider than the screen by {wide}"
        papers[name] = await page.eval("getComputedStyle(document.body).backgroundColor")
        ink = await page.eval("document.getElementById('front').layout.font.color")
        assert ink == await page.eval("colour('ink')")
        await page.picture(tmp_path / f"{name}.png")
        await page.picture(tmp_path / f"{name}-whole.png", whole=True)
    assert papers["light"] == papers["phone"] != papers["dark"]
    print(f"screenshots: {tmp_path}")


async def test_the_switch_overrides_the_system(page: Page, report: Path) -> None:
    await page.prefer("light")
    await shown(page, report)
    seen = []
    for _ in range(3):
        await page.eval("document.getElementById('theme').click()")
        seen.append(await page.eval("document.documentElement.dataset.theme"))
    assert seen == ["light", "dark", "light"]  # light, dark, as the system


async def test_hostile_names_run_nothing(
    page: Page,
    empty: Store,
    identity: StudyIdentity,
    fill: Callable[[Store, StudyIdentity], None],
    tmp_path: Path,
) -> None:
    hostile = "</script><img src=x onerror='window.ran = 1'><b>"
    fill(empty, replace(identity, name=hostile, model=hostile))
    empty.add_event(hostile, hostile, hostile)
    path = tmp_path / "hostile.html"
    write_page(read_report_data(empty, hostile), path)
    await shown(page, path)
    await page.eval("Object.keys(FIGURES).forEach(draw)")
    assert await page.eval("window.ran") is None
    assert await page.eval("document.querySelectorAll('img').length") == 0
    assert await page.eval("document.title") == f"{hostile} · tuner"


@pytest.mark.parametrize("bound_ms", [None, 1.0])
async def test_a_night_without_an_answer_draws_nothing_that_is_not_there(
    page: Page,
    empty: Store,
    identity: StudyIdentity,
    fill: Callable[[Store, StudyIdentity], None],
    tmp_path: Path,
    bound_ms: float | None,
) -> None:
    if bound_ms is None:
        empty.create_study(identity)  # and nothing was measured yet
    else:
        fill(empty, replace(identity, slos=(f"p99_tpot_ms<={bound_ms}",)))
    write_page(read_report_data(empty, "night"), tmp_path / "night.html")
    await page.open((tmp_path / "night.html").as_uri())
    await page.eval("Object.keys(FIGURES).forEach(draw)")
    heading = await page.eval("document.querySelector('h1').textContent")
    wanted = {None: "No trial has ended yet", 1.0: "No configuration meets the SLO"}
    assert heading == wanted[bound_ms]
    axes = await page.eval("Object.keys(document.getElementById('night').layout || {})")
    assert ("yaxis3" in axes) is (bound_ms is not None)
    assert "yaxis2" not in axes  # no hypervolume and no least energy to show
    heights = (
        "[...document.querySelectorAll('.plot')].filter((p) => p.querySelector(':scope > .empty'))"
        ".map((p) => p.offsetHeight)"
    )
    empty_plots = await page.eval(heights)
    assert empty_plots and max(empty_plots) < 60


def test_pictures(report: Path, tmp_path: Path) -> None:
    made = write_pictures(report, tmp_path / "pictures")
    assert [p.name for p in made] == ["report.png", *(f"{name}.png" for name in FIGURES)]
    assert all(p.read_bytes().startswith(b"\x89PNG") and p.stat().st_size > 20_000 for p in made)
    print(f"pictures: {tmp_path}")
