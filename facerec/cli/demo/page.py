"""The one page that a demo ends with: every stage's figures and plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from facerec.cli.demo.sets import PAIRS, DemoSet
from facerec.cli.demo.summary import FAR
from facerec.pages import Page, build_bars, build_line_plot
from facerec.provenance import versions

_BARS = 80


def write_page(
    out: Path,
    data: DemoSet,
    stages: list[dict[str, Any]],
    results: dict[str, Any],
    summary: dict[str, Any],
    seconds: float,
    peak: int,
) -> Path:
    """Write `index.html` into the demo's folder and return its path."""
    page = Page("facerec: the whole line", "from a crawl to a watch list and its score")
    page.paragraph(data.about)
    _add_headline(page, data, results, summary)
    if data.synthetic:
        _add_faces(page, out)
    _add_cleaning(page, out, results)
    _add_training(page, out, results)
    _add_verification(page, results, summary)
    _add_watch(page, summary)
    _add_search(page, results, summary)
    page.heading("Stages")
    page.table(
        ["stage", "seconds", "command"],
        [[s["stage"], round(s["seconds"], 1), _shorten(s["command"], out)] for s in stages],
        f"Every command that ran, {seconds:.0f} s in all, {peak / 2**20:.0f} MiB at most.",
    )
    page.heading("Versions").key_values(versions())
    return page.write(out / "index.html")


def _add_headline(
    page: Page, data: DemoSet, results: dict[str, Any], summary: dict[str, Any]
) -> None:
    clean, search, tracks = summary["clean"], summary["search"], summary["tracks"]
    right = sum(row["right"] for row in tracks)
    rows: dict[str, Any] = {
        "Crawl": f"{results['ingest']['pictures']:,} pictures, {results['ingest']['faces']:,} "
        f"faces, {results['ingest']['unusable']:,} without a usable face",
        "Cleaning": f"{results['clean']['dropped']:,} faces dropped, "
        f"{results['clean']['relabelled']:,} moved to whom they show and "
        f"{results['clean']['duplicates']:,} copies left out, by what the set's own scores gave",
    }
    if clean:
        rows["Cleaning against the truth"] = (
            f"precision {_percent(clean['precision'])}, recall {_percent(clean['recall'])} over "
            f"{clean['wrong']:,} wrong faces"
        )
    for name, label in (("raw", "trained on the raw set"), ("final", "trained on the clean set")):
        model = summary[name]
        rows[f"Verification, {label}"] = (
            f"accuracy {model['accuracy']:.2%}, TAR {model['tar']:.2%} at FAR {FAR:g} over all "
            f"pairs of {model['pictures']:,} pictures of {model['people']:,} people not trained on"
            f"{'' if model['supported'] else '; at this FAR too few pairs to support the figure'}"
        )
    rows["Video"] = f"{right} of {len(tracks)} tracks answered rightly"
    rows["Search"] = (
        f"FNIR {_percent(search['fnir'])} over {search['mated']:,} mated probes, "
        f"FPIR {_percent(search['fpir'])} over {search['non_mated']:,} non-mated, "
        f"{len(data.listed)} people on the list"
    )
    page.heading("In short").key_values(rows)


def _add_faces(page: Page, out: Path) -> None:
    """Show some drawn people; only ever called for people who do not exist."""
    from facerec.data.images import read_image

    folders = sorted(path for path in (out / PAIRS).iterdir() if path.is_dir())[:4]
    files = [file for folder in folders for file in sorted(folder.glob("*.jpg"))[:3]]
    page.heading("Some of the people")
    page.pictures(
        [read_image(file) for file in files],
        [f"{file.parent.name}, {file.stem}" for file in files],
        "Four drawn people, three pictures each. They do not exist.",
    )


def _add_cleaning(page: Page, out: Path, results: dict[str, Any]) -> None:
    clean = results["clean"]
    page.heading("Cleaning")
    own, strangers = clean["histograms"]["own"], clean["histograms"]["strangers"][0]
    edges = [-1 + 2 * (i + 0.5) / _BARS for i in range(_BARS)]
    page.figure(
        build_line_plot(
            {
                "own folder": (edges, _shares(own)),
                "other folders": (edges, _shares(strangers)),
            },
            "cosine to the folder's centre",
            "share of faces",
            lines={"threshold": clean["threshold"]},
            markers=False,
        ),
        "Scores of faces against their own folder's centre lie mostly above the threshold, those "
        "against other folders' below it; what lies below in its own folder is dropped.",
        "Each face against the robust centre of its own folder and of others.",
    )
    score = results.get("score")
    if score:
        page.table(
            ["what was wrong", "faces", "found", "share found"],
            [[k, v["wrong"], v["hit"], v["recall"]] for k, v in score["kinds"].items()],
            "Injected noise and how much of it was found.",
        )
    page.link("The cleaning report", str((out / "set" / "report.html").relative_to(out)))


def _add_training(page: Page, out: Path, results: dict[str, Any]) -> None:
    page.heading("Training")
    curves = {}
    for name, label in (("raw-model", "raw set"), ("final-model", "clean set")):
        lines = (out / "runs" / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if "loss" in row]
        curves[label] = ([row["step"] for row in rows], [row["loss"] for row in rows])
    page.figure(
        build_line_plot(curves, "step", "loss", markers=False),
        f"Training loss by step; at its end {_describe_ends(curves)}.",
        "Loss of the model trained on the raw set and of the one trained on the clean set.",
    )
    final = results["final"]
    page.key_values(
        {
            "Identities": final["identities"],
            "Chips": final["chips"],
            "Steps": final["steps"],
            "Parameters": final["params"],
            "MACs": final["macs"],
        }
    )


def _describe_ends(curves: dict[str, tuple[list[int], list[float]]]) -> str:
    return ", ".join(f"{loss[-1]:.2f} ({name})" for name, (_, loss) in curves.items() if loss)


def _add_verification(page: Page, results: dict[str, Any], summary: dict[str, Any]) -> None:
    page.heading("Verification")
    names = {"verify-raw": "trained on the raw set", "verify-final": "on the clean set"}
    page.figure(
        build_line_plot(
            {
                label: (results[name]["roc"]["far"], results[name]["roc"]["tar"])
                for name, label in names.items()
            },
            "false accept rate",
            "true accept rate",
            x_scale="log",
            markers=False,
        ),
        f"ROC of both models; EER {summary['raw']['eer']:.2%} of the model trained on the raw "
        f"set and {summary['final']['eer']:.2%} of the one trained on the clean set.",
        "ROC over the list of pairs, people that neither model was trained on.",
    )
    for name, label in names.items():
        page.link(f"The verification report of the model {label}", f"{name}.html")


def _add_watch(page: Page, summary: dict[str, Any]) -> None:
    page.heading("Video")
    columns = ["track", "from, s", "to, s", "frames", "dropped", "answer", "score", "truth", "ok"]
    names = (
        "track",
        "first_s",
        "last_s",
        "frames",
        "dropped",
        "answer",
        "score",
        "truth",
        "right",
    )
    page.table(
        columns,
        [[row[name] for name in names] for row in summary["tracks"]],
        "One template and one search a track. Strangers must be answered with unknown.",
    )


def _add_search(page: Page, results: dict[str, Any], summary: dict[str, Any]) -> None:
    search = summary["search"]
    page.heading("Search")
    mated = search["mated"] or 1
    strangers = search["non_mated"] or 1
    page.figure(
        build_bars(
            ["listed people, found", "strangers, rejected"],
            [
                (mated - search["missed"]) / mated,
                (strangers - search["accepted"]) / strangers,
            ],
            "share of probes answered rightly",
        ),
        f"Of the probes of listed people {_percent(search['fnir'])} were missed, of those of "
        f"strangers {_percent(search['fpir'])} accepted as somebody.",
        "Stills against the watch list of documents, at the threshold of FAR 0.001.",
    )
    audit = results["audit"]
    page.paragraph(
        f"The audit log holds {audit['count']:,} entries and is "
        f"{'whole' if not audit['faults'] else 'NOT whole'}."
    )


def _shares(counts: list[int]) -> list[float]:
    """Return a fine histogram as `_BARS` shares of all."""
    total, step = sum(counts) or 1, len(counts) // _BARS
    return [sum(counts[i * step : (i + 1) * step]) / total for i in range(_BARS)]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"  # noqa: RUF001


def _shorten(command: str, out: Path) -> str:
    recipe = str(Path(__file__).resolve().parents[3])
    return command.replace(f"{out}/", "").replace(f"{recipe}/", "")
