"""The page of an evaluation and of a comparison, read as HTML."""

import itertools
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from evaluation_cases import BARE, PageReader, make_evaluation

from eval.compare import compare_evaluations
from eval.evaluation import Evaluation, Failure
from eval.evaluation_curves import Det, Growth, Histogram
from eval.evaluation_estimates import Bar, Estimate, Headline, Slice
from eval.report_evaluation import MOST_FAILURES, build_comparison_page, build_evaluation_page
from eval.report_page import ReportPage
from eval.report_plots import plot_estimates
from facerec.checks import InputError
from facerec.plots import build_line_plot

HOSTILE = '"><script>alert(1)</script>$-->'


@pytest.fixture(scope="module")
def one():
    return PageReader(build_evaluation_page(make_evaluation()).html())


@pytest.fixture(scope="module")
def two():
    """A comparison of simulated evaluations."""
    pair = [make_evaluation(simulated=True), make_evaluation("big", 0.2, 1, simulated=True)]
    comparison = compare_evaluations(pair, ["a", "b"], resamples=50)
    return PageReader(build_comparison_page(comparison).html())


@pytest.mark.parametrize("which", ["one", "two"])
def test_headings_are_in_order_under_one_title(which, request):
    levels = [level for level, _ in request.getfixturevalue(which).headings]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("which", ["one", "two"])
def test_pages_are_accessible(which, request):
    page = request.getfixturevalue(which)
    assert page.all("html") == [{"lang": "en"}]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["scope"] for a in page.all("th")} == {"col", "row"}
    assert len(page.all("caption")) == len(page.all("table"))
    for svg in page.all("svg"):
        assert svg["role"] == "img"
        assert set(svg["aria-labelledby"].split()) <= set(ids)
    assert len(page.all("title")) == len(page.all("desc")) + 1 == len(page.all("svg")) + 1
    assert page.all("a")[0] == {"class": "skip", "href": "#content"}
    assert {a["href"][1:] for a in page.all("a")} <= set(ids)
    assert page.all("summary")
    for box in page.all("div"):
        assert box["tabindex"] == "0" and box["aria-labelledby"] in ids


@pytest.mark.parametrize("which", ["one", "two"])
def test_pages_load_nothing_and_run_nothing(which, request):
    page = request.getfixturevalue(which)
    assert not page.all("script") and not page.all("img")
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for value in attributes.values():
            assert "http:" not in (value or "") and "https:" not in (value or "")
    references = [a["href"] for a in page.all("use")]
    references += [
        f"#{name}"
        for _, a in page.tags
        for value in a.values()
        for name in re.findall(r"url\(#([^)]+)\)", value or "")
    ]
    ids = {f"#{a['id']}" for _, a in page.tags if "id" in a}
    assert references and set(references) <= ids
    style = "".join(page.text).split("}")
    assert any("prefers-color-scheme: dark" in rule for rule in style)
    assert not any("url(" in rule or "@import" in rule for rule in style)


def test_plots_are_drawn_in_the_colours_of_the_page(two):
    drawn = " ".join(a.get("style", "") for tag, a in two.tags if tag in ("path", "use", "g"))
    assert not re.findall(r"#[0-9a-f]{6}", drawn)
    assert {"--series-1", "--series-2", "--ink"} <= set(re.findall(r"var\((--[\w-]+)\)", drawn))
    assert "stroke-dasharray" in drawn
    assert two.all("pattern")  # a hatch: the two kinds of scores differ in greyscale


def test_every_part_is_on_the_page(one):
    text = " ".join(one.text)
    for part in ("30.67 %", "25.67 to 35.67 %", "not supported: 3 errors allowed", "cam 12 px",
                 "cam/a.png", "no face", "FTE", "cam/mated_document.png", "0.71", "300",
                 "frozen on people", "sha256 of model", "version of numpy", "not measured",
                 "threshold at FMR 1e-3 lies at 0.31", "FNMR 0.1"):  # fmt: skip
        assert part in text, part
    assert "simulated" not in text.lower()


def test_a_comparison_has_a_column_a_model_and_the_differences(two):
    text = " ".join(two.text)
    for part in ("big minus small", "better", "not paired: the figure is not given by subject",
                 "Failures of big", "Worst errors of small"):  # fmt: skip
        assert part in text, part
    columns = [a for a in two.all("th") if a["scope"] == "col"]
    assert len(columns) > 20


def test_simulated_stands_in_every_heading(one, two):
    bare = build_evaluation_page(make_evaluation(simulated=True, **BARE)).html()
    for page, simulated in ((one, False), (two, True), (PageReader(bare), True)):
        assert {"(simulated)" in text for _, text in page.headings} == {simulated}
    assert "(simulated)</title>" in bare


def test_hostile_names_are_escaped():
    without = {"det": (), "growth": ()}  # their plots hold no name that the others do not
    evaluation = make_evaluation(HOSTILE, name=HOSTILE, **without)
    other = make_evaluation(HOSTILE + "2", 0.2, 1, name=HOSTILE, **without)
    comparison = compare_evaluations([evaluation, other], ["a", "b"], resamples=20)
    reader = PageReader(build_comparison_page(comparison).html())
    assert not reader.all("script")
    assert HOSTILE in "".join(reader.text)


def test_pictures_are_shown_only_when_a_folder_is_given(tmp_path):
    evaluation = make_evaluation(**BARE)
    outside = tmp_path / "outside.png"
    images = tmp_path / "images"
    (images / "cam").mkdir(parents=True)
    for path in (images / "cam" / "track.png", images / "cam" / "other.png", outside):
        cv2.imwrite(str(path), np.full((300, 200, 3), 90, np.uint8))
    worst = tuple(replace(each, first="../outside.png") for each in evaluation.worst[:1])
    evaluation = replace(evaluation, worst=worst + evaluation.worst[1:])
    assert not PageReader(build_evaluation_page(evaluation).html()).all("img")
    html = build_evaluation_page(evaluation, [tmp_path / "none", images]).html()
    pictures = PageReader(html).all("img")
    assert [each["alt"] for each in pictures] == [
        "cam/track.png (score 0.02)", "cam/other.png (score 0.71)", "cam/track.png (score 0.71)",
    ]  # fmt: skip
    assert all(each["src"].startswith("data:image/jpeg") for each in pictures)
    assert max(len(each["src"]) for each in pictures) < 10_000
    assert "1 of these files are no picture" in html


def test_a_page_lists_many_failures_up_to_a_bound():
    failures = tuple(Failure(f"f{i:05d}.png", "no face") for i in range(MOST_FAILURES + 7))
    html = build_evaluation_page(make_evaluation(failures=failures, **BARE)).html()
    assert html.count(".png</th>") == MOST_FAILURES + 2  # and two worst errors
    assert "7 more are in the JSON" in html
    assert "1,007 failures by file name" in html


def test_edges_of_the_contract_are_drawn():
    evaluation = Evaluation(
        "bare",
        ("words",),
        False,
        (Headline("x", 0.0),),
        det=(Det("perfect", "FMR", "FNMR", (0.0, 1.0), (0.0, 0.0)),),
        histograms=(Histogram("one kind", (0.0, 1.0), (0,), (3,)),),
        growth=(Growth("g", (5,), (Estimate("N", None, reason="no"),), "s"),),
        slices=(Slice("s", "f", (), "s"), Slice("t", "f", (Bar("$", None, reason="few"),))),
        provenance={},
    )
    text = " ".join(PageReader(build_evaluation_page(evaluation).html()).text)
    for part in ("no point at the usual targets", "there are no mated scores",
                 "no size was measured", "No part of this slice", "Everything gave"):  # fmt: skip
        assert part in text, part


def test_long_names_keep_apart_in_a_legend():
    bars = [Bar("a", 0.5, 0.4, 0.6)]
    figure = plot_estimates(["a" * 50], {"x" * 90 + str(i): bars for i in range(2)}, "f", "share")
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert len(set(names)) == 2
    assert max(map(len, names)) < 40


def test_a_plot_needs_words():
    with pytest.raises(InputError, match="a title and a description"):
        ReportPage("p").plot(build_line_plot({}, "x", "y"), "t", " ")


def test_the_same_evaluation_gives_the_same_bytes():
    pages = [build_evaluation_page(make_evaluation(det=(), growth=())).html() for _ in range(2)]
    assert pages[0] == pages[1]
