"""The pages of an evaluation and of a comparison in a real browser, phone and desktop."""

import asyncio
import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
from browser import find_chromium, open_tab
from evaluation_cases import make_evaluation

from eval.compare import compare_evaluations
from eval.evaluation import Failure
from eval.report_evaluation import build_comparison_page, build_evaluation_page

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt install chromium")
WIDTHS = (360, 390, 1280)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Both pages with pictures and names that have no place to break."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("mated_document", "track", "other"):
        picture = np.full((80, 60, 3), 128, np.uint8)
        (folder / "cam").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / "cam" / f"{name}.png"), picture)
    failures = (Failure("x" * 300 + ".png", "no face"),)
    one = replace(make_evaluation(simulated=True), failures=failures)
    other = make_evaluation("y" * 120, 0.2, 1, simulated=True)
    comparison = compare_evaluations([one, other], ["a", "b"], resamples=100)
    build_evaluation_page(one, [folder]).write(folder / "one.html")
    build_comparison_page(comparison, [folder]).write(folder / "two.html")
    (folder / "bad.html").write_text(BAD % ("x" * 500))
    return folder


BAD = """<!DOCTYPE html><html lang="en"><head><title>bad</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'"></head>
<body><p>%s</p><img src="https://example.invalid/a.png" alt="x"></body></html>"""


async def look(pages, profile):
    """Return what the browser logged and a line a page, width and colour scheme."""
    seen = {}
    async with open_tab(CHROMIUM, profile) as tab:
        for name in ("one", "two"):
            for width in WIDTHS:
                for dark in (False, True):
                    await tab.open((pages / f"{name}.html").as_uri(), width, 844, dark)
                    # What is folded must fit, too.
                    seen[name, width, dark] = await tab.evaluate(
                        "document.querySelectorAll('details').forEach(d => d.open = true);"
                        "({body: Math.max(document.body.scrollWidth,"
                        " document.documentElement.scrollWidth),"
                        " window: document.documentElement.clientWidth,"
                        " paper: getComputedStyle(document.body).backgroundColor,"
                        " ink: getComputedStyle(document.querySelector('.plot svg')).fill,"
                        " line: getComputedStyle(document.querySelector("
                        " '[id*=axes_1] [style*=series-1]')).stroke,"
                        " plots: document.querySelectorAll('.plot svg').length,"
                        " pictures: [...document.images].every(i => i.naturalWidth > 0)})"
                    )
        await tab.open((pages / "one.html").as_uri(), 390, 844, False)
        stops = []
        for _ in range(40):
            await tab.press_tab()
            stops.append(
                await tab.evaluate(
                    "document.activeElement.className || document.activeElement.tagName"
                )
            )
        logged = list(tab.logged)
        await tab.open((pages / "bad.html").as_uri(), 390, 844, False)
        seen["bad"] = (
            len(tab.logged) > len(logged),
            await tab.evaluate(
                "document.documentElement.scrollWidth > document.documentElement.clientWidth"
            ),
        )
        return logged, seen, stops


@pytest.fixture(scope="module")
def sight(pages, tmp_path_factory):
    return asyncio.run(look(pages, tmp_path_factory.mktemp("profile")))


def test_the_browser_complains_of_nothing(sight):
    assert sight[0] == []
    assert sight[1]["bad"] == (True, True)  # it does complain of a page that gives cause


def test_no_page_is_wider_than_its_window(sight):
    for name, width, dark in itertools.product(("one", "two"), WIDTHS, (False, True)):
        found = sight[1][name, width, dark]
        assert found["window"] <= width
        assert found["body"] <= found["window"], f"{name} at {width} px: {found}"
        assert found["plots"] >= 4
        assert found["pictures"]


def test_plots_follow_light_and_dark(sight):
    for name in ("one", "two"):
        light, dark = (sight[1][name, 1280, dark] for dark in (False, True))
        for part in ("paper", "ink", "line"):
            assert light[part] != dark[part], part
            assert light[part].startswith("rgb"), part


def test_the_keyboard_reaches_the_skip_link_tables_and_folds(sight):
    stops = sight[2]
    assert stops[0] == "skip"
    assert {"A", "scroll", "SUMMARY"} <= set(stops)
