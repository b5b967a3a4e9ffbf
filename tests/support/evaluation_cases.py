"""Evaluations made up for tests, and a reader of pages that knows what accessible means."""

from html.parser import HTMLParser

import numpy as np

from eval.evaluation import Evaluation, Failure, SubjectCounts, WorstError
from eval.evaluation_curves import Growth, build_det, build_histogram
from eval.evaluation_estimates import Bar, Estimate, Headline, Slice

FNIR = "FNIR at FPIR 1 %"
PEOPLE = 60


def make_counts(miss, seed=0, people=PEOPLE, figure=FNIR):
    """Five tracks a person, each missed with the same probability."""
    misses = np.random.default_rng(seed).binomial(5, miss, people)
    names = tuple(f"p{i:03d}" for i in range(people))
    return SubjectCounts(figure, names, tuple(map(float, misses)), (5.0,) * people)


def make_evaluation(model="small", miss=0.3, seed=0, simulated=False, name="cam", **changes):
    """A rich evaluation: every part of the contract is there; `name` begins every name in it."""
    rng = np.random.default_rng(seed)
    counts = make_counts(miss, seed)
    value = counts.value
    far = np.geomspace(1e-5, 1, 300)
    fnmr = np.clip(miss * (1 - far ** (0.15 + miss / 5)), 0, 1)
    sizes = ((12, 2.4), (20, 1.5), (32, 0.7), (64, 0.2))
    ends = [[min(value * k * by, 1) for by in (1, 0.8, 1.2)] for _, k in sizes]
    bars = [
        Bar(f"{name} {size} px", *three, "", 75)
        for (size, _), three in zip(sizes, ends, strict=True)
    ]
    bars.append(Bar(f"{name} 128 px", None, reason="not supported: 3 tracks", count=3))
    people = (100, 1000, 10_000, 100_000)
    points = [
        Estimate(f"N = {n}", value + 0.03 * i, value + 0.03 * i - 0.02, value + 0.03 * i + 0.03)
        for i, n in enumerate(people[:3])
    ]
    points.append(Estimate("N = 100,000", None, reason="not measured: 20,000 distractors given"))
    values = {
        "title": f"Documents against tracks, {name}",
        "protocol": (
            "The track is the transaction; each is compared with the document of its person.",
            "Thresholds were frozen on people of the development half.",
        ),
        "simulated": simulated,
        "headline": (
            Headline(FNIR, value, max(value - 0.05, 0), min(value + 0.05, 1)),
            Headline("TAR at FAR 1e-03", 1 - miss / 2, better="higher", reason="no interval"),
            Headline("FNMR at FMR 1e-05", None, reason="not supported: 3 errors allowed"),
            Headline("threshold", 0.41, unit="cosine", better="neither"),
        ),
        "model": model,
        "task": "doc2surv",
        "det": (build_det("1:1", "FMR", "FNMR", far, fnmr),),
        "histograms": (
            build_histogram(
                f"{name}: tracks against documents",
                np.clip(rng.normal(0.5, 0.13, 900), -1, 1),
                rng.normal(0.02, 0.08, 30_000),
                {"threshold at FMR 1e-3": 0.31},
            ),
        ),
        "growth": (Growth(f"{FNIR}, exact search", people, tuple(points)),),
        "slices": (Slice("face size", FNIR, tuple(bars)),),
        "failures": (
            Failure(f"{name}/a.png", "no face", "FTE"),
            Failure(f"{name}/b.mp4#3", "too small"),
        ),
        "worst": (
            WorstError("mated", f"{name}/mated_document.png", f"{name}/track.png", 0.02),
            WorstError("non-mated", f"{name}/other.png", f"{name}/track.png", 0.71),
        ),
        "counts": {"people": PEOPLE, "tracks": 5 * PEOPLE},
        "provenance": {
            "created": "2026-01-01T00:00:00+00:00",
            "versions": {"facerec": "0.1.0", "numpy": "2"},
            "seed": seed,
            "hashes": {"model": "ab" * 32, "documents": "cd" * 32},
        },
        "subjects": (counts,),
    }
    return Evaluation(**{**values, **changes})


BARE = {"det": (), "histograms": (), "growth": (), "slices": ()}
"""Changes that leave a page without plots, which take most of its time."""


class PageReader(HTMLParser):
    """Collects tags and text, and fails on a tag that is closed out of order."""

    _VOID = frozenset(("meta", "link", "img", "br", "hr"))

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.headings = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in self._VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append((int(self.open[-1][1]), data))

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]
