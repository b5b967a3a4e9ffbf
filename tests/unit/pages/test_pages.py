from html.parser import HTMLParser

import numpy as np
import pytest

from facerec.checks import InputError
from facerec.pages import Page, build_bars, build_histogram, build_line_plot, format_cell

HOSTILE = '<script>alert("x")</script>'
VOID = {"meta", "link", "img", "br", "hr"}


class Reader(HTMLParser):
    """Collects tags, and fails on a tag that is closed out of order."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def read(page):
    reader = Reader()
    reader.feed(page.html())
    assert reader.open == []
    return reader


def full_page():
    page = Page("Report", "of a test")
    page.heading("First").paragraph("Text.").key_values({"people": 12345, "share": 0.25})
    page.heading("Second").table(["name", "n"], [("a", 1), ("b", None)], "Counts by name")
    plot = build_line_plot({"one": ([1, 2], [3, 4])}, "x", "y")
    page.heading("Third").heading("Part", level=3).figure(plot, "a rising line", "Below")
    page.pictures([np.zeros((8, 8, 3), np.uint8)], ["a black square"])
    page.link("The other page", "clean/report.html")
    return page


def test_page_is_well_formed_and_accessible():
    reader = read(full_page())
    assert reader.all("html") == [{"lang": "en"}]
    assert len(reader.all("h1")) == 1
    assert len(reader.all("caption")) == 1
    assert {a["scope"] for a in reader.all("th")} == {"col", "row"}
    assert [a["alt"] for a in reader.all("img")] == ["a rising line", "a black square"]
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids))
    inner = [a["href"][1:] for a in reader.all("a") if a["href"].startswith("#")]
    assert len(inner) == 3
    assert set(inner) <= set(ids)


def test_page_loads_nothing_and_runs_nothing():
    reader = read(full_page())
    assert not reader.all("script")
    for _, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
    assert all(a["href"].startswith("data:") for a in reader.all("link"))
    style = full_page().html().split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style


def test_hostile_text_is_escaped_everywhere():
    page = Page(HOSTILE, HOSTILE).heading(HOSTILE).heading(HOSTILE).heading(HOSTILE)
    page.paragraph(HOSTILE).key_values({HOSTILE: HOSTILE})
    page.table([HOSTILE], [[HOSTILE]], HOSTILE).link(HOSTILE, "a.html?" + HOSTILE)
    names = {HOSTILE: ([1, 2], [1, 2]), "$": ([1, 2], [1, 2]), "_hidden": ([1, 2], [2, 1])}
    page.figure(build_line_plot(names, HOSTILE + "$", "$y"), 'x" onerror="alert(1)', HOSTILE)
    page.pictures([np.zeros((4, 4, 3), np.uint8)], [HOSTILE], HOSTILE)
    reader = read(page)
    assert not reader.all("script")
    assert not [a for _, a in reader.tags if "onerror" in a]
    assert HOSTILE in "".join(reader.text)


def test_write_leaves_one_complete_file(tmp_path):
    path = full_page().write(tmp_path / "deep" / "page.html")
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_same_content_gives_the_same_bytes():
    assert full_page().html() == full_page().html()


def test_a_plot_of_very_many_points_becomes_a_png():
    rng = np.random.default_rng(0)
    plot = build_line_plot({"noise": (np.arange(9000), rng.random(9000))}, "x", "y", markers=True)
    (image,) = read(Page("p").figure(plot, "noise")).all("img")
    assert image["src"].startswith("data:image/png")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\N{EN DASH}"), (True, "yes"), (1234567, "1,234,567"), (np.int64(5), "5"),
     (0.123456, "0.1235"), (np.float32(1e-5), "1e-05"), ("a", "a")],
)  # fmt: skip
def test_cells_are_formatted(value, text):
    assert format_cell(value) == text


def test_histogram_and_bars_draw_edge_cases():
    page = Page("p")
    zeros = {"perfect": ([0, 0.5], [0, 0]), "empty": ([], [])}
    page.figure(build_line_plot(zeros, "x", "y", x_scale="log", y_scale="log"), "nothing")
    page.figure(build_line_plot({}, "x", "y"), "nothing")
    groups = {"mated": [0.5, np.inf, np.nan], "non-mated": [], "constant": [1.0, 1.0]}
    page.figure(build_histogram(groups, "score", lines={"threshold": 0.4}), "three groups")
    page.figure(build_histogram({}, "score"), "nothing")
    page.figure(build_bars(["a", "b$"], [1, 2.5], "s", intervals=[(0.5, 2), (2, 3)]), "two bars")
    page.figure(build_bars([], [], "s"), "no bars")
    assert len(read(page).all("img")) == 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.table(["a", "b"], [(1, 2), (1,)], "T"), "row 2 has 1 cells"),
        (lambda p: p.heading("x", level=1), "level must be 2 or 3"),
        (lambda p: p.link("x", "javascript:alert(1)"), "relative path"),
        (lambda p: p.link("x", "//elsewhere/x"), "relative path"),
        (lambda p: p.figure(build_bars([], [], "s"), " "), "text alternative"),
        (lambda p: p.pictures([], ["a"]), "0 pictures"),
        (lambda p: build_line_plot({"a": ([1], [1, 2])}, "x", "y"), "two equal rows"),
        (lambda p: build_line_plot({}, "x", "y", x_scale="loog"), "did you mean 'log'"),
        (lambda p: build_bars(["a"], [1, 2], "x"), "1 bars"),
    ],
)
def test_misuse_is_refused_with_a_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call(Page("p"))
