"""What a set holds and what cleaning did to it: one HTML page and the same figures as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools.centres import Array
from data_tools.decisions import Log, Round, read_log
from data_tools.log_clean import read_state
from data_tools.review_answers import SITE
from data_tools.review_rows import Rows, collect_rows, take_floats
from data_tools.sets import SetFolder, open_set, read_info
from data_tools.thresholds import EDGES, MIDS
from facerec.checks import InputError
from facerec.io import sha256_file
from facerec.pages import Page, build_line_plot
from facerec.provenance import versions, write_result

_MAX_PICTURES = 200
_MODEL = "model_sha256"
_COLUMNS = (
    "kept",
    "dropped",
    "relabelled",
    "merged",
    "split",
    "duplicates",
    "overlap",
    "restored",
    "threshold",
    "noise",
    "flagged_share",
)
"""Figures of a round in the table of rounds."""


def write_report(
    out: Path, *, with_images: bool = False, top: int = 50, json_path: Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """Write `report.html` and `report.json` into a set folder; return the page's path and figures.

    Args:
        out: a set folder.
        with_images: show the dropped chips in the page (at most 200, worst first).
        top: identities in the table, worst first.
        json_path: a second place for the figures.

    Raises:
        InputError: no complete set.
    """
    if top < 1:
        raise InputError(f"the table needs at least 1 identity, got {top}")
    folder = open_set(out)
    log = read_log(folder.log)
    rows = collect_rows(folder, log) if _find_scored(folder, log) else None
    figures = _build_figures(folder, log, rows)
    page = _build_page(figures, top)
    if (folder.root / SITE / "index.html").is_file():
        page.heading("Review").link("Contact sheets and sample", f"{SITE}/index.html")
    if with_images:
        _add_pictures(page, folder, rows)
    hashes = {"manifest": sha256_file(folder.manifest)}
    if (figures["round"] or {}).get("settings", {}).get(_MODEL):
        hashes["model"] = figures["round"]["settings"][_MODEL]
    config = {"with_images": with_images, "top": top}
    for path in (folder.root / "report.json", json_path):
        if path is not None:
            write_result(path, figures, config=config, hashes=hashes)
    return page.write(folder.root / "report.html"), figures


def build_figures(folder: SetFolder) -> dict[str, Any]:
    """Return the figures of a set: ingest, stages, rounds, the last scored round, each identity."""
    log = read_log(folder.log)
    rows = collect_rows(folder, log) if _find_scored(folder, log) else None
    return _build_figures(folder, log, rows)


def _build_figures(folder: SetFolder, log: Log, rows: Rows | None) -> dict[str, Any]:
    info = read_info(folder)
    manifest = pq.read_table(folder.manifest, columns=["path", "reason"], partitioning=None)
    counts = pc.value_counts(manifest["reason"].combine_chunks()).to_pylist()
    reasons = {one["values"]: one["counts"] for one in counts if one["values"]}
    unusable = sum(reasons.values())
    _, fates = read_state(folder, log.active)
    return {
        "settings": info["settings"],
        "ingested_with": info["versions"],
        "rows": manifest.num_rows,
        "pictures": pc.count_distinct(manifest["path"]).as_py(),
        "faces": manifest.num_rows - unusable,
        "unusable": unusable,
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1])),
        "stages": info["stages"],
        "rounds": [_describe_round(entry) for entry in log.active],
        "round": None if rows is None else {"number": rows.round.number, **rows.round.summary},
        "decided": int(np.count_nonzero(fates.decided >= 0)),
        "identities": [] if rows is None else _count_identities(rows.table),
    }


def _find_scored(folder: SetFolder, log: Log) -> bool:
    return any(folder.scores(entry.number).is_file() for entry in log.active)


def _describe_round(entry: Round) -> dict[str, Any]:
    """Return what a round says of itself; a person's review has neither model nor threshold."""
    summary = entry.summary
    names = ("model", "judged", "threshold_found", *_COLUMNS)
    judged, flagged = summary.get("judged"), summary.get("flagged")
    share = flagged / judged if judged and flagged is not None else None
    found = {name: summary.get(name) for name in names if name != "flagged_share"}
    check = summary.get("check") or summary.get("settings", {}).get("check")
    return {"round": entry.number, "check": check, **found, "flagged_share": share}


def _count_identities(table: pa.Table) -> list[dict[str, Any]]:
    """Return each given identity's figures now, the greatest share of drops first."""
    table = table.filter(pc.not_equal(table["identity"], ""))
    encoded = table["identity"].combine_chunks().dictionary_encode()
    code, names = encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
    gone = pc.is_null(table["fate"]).to_numpy()
    faces = np.bincount(code, minlength=len(names))
    dropped = np.bincount(code[gone], minlength=len(names))
    median, lowest = _summarise_scores(code, take_floats(table, "own"), len(names))
    nearest = _find_nearest(code[gone], table["other_identity"].filter(pa.array(gone)), len(names))
    figures = [
        {
            "identity": name,
            "faces": int(faces[i]),
            "dropped": int(dropped[i]),
            "share": float(dropped[i] / faces[i]),
            "median_score": None if np.isnan(median[i]) else float(median[i]),
            "lowest_score": None if np.isnan(lowest[i]) else float(lowest[i]),
            "nearest_other": nearest[i],
        }
        for i, name in enumerate(names)
    ]
    figures.sort(key=lambda entry: (-entry["share"], -entry["dropped"], entry["identity"]))
    return figures


def _summarise_scores(code: np.ndarray, own: Array, count: int) -> tuple[Array, Array]:
    """Return the median and the lowest score of each identity, float64 (count,), NaN for none."""
    known = np.flatnonzero(~np.isnan(own))
    order = known[np.lexsort((own[known], code[known]))]
    scores, sizes = own[order], np.bincount(code[order], minlength=count)
    starts = np.cumsum(sizes) - sizes
    median, lowest = np.full(count, np.nan), np.full(count, np.nan)
    some = sizes > 0
    first, size = starts[some], sizes[some]
    lowest[some] = scores[first]
    median[some] = (scores[first + (size - 1) // 2] + scores[first + size // 2]) / 2
    return median, lowest


def _find_nearest(code: np.ndarray, others: pa.ChunkedArray, count: int) -> list[str]:
    """Return to whom most of each identity's rows are nearest, "" for an identity without rows."""
    nearest = [""] * count
    encoded = others.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    pairs, counts = np.unique(
        code * max(len(names), 1) + encoded.indices.to_numpy(), return_counts=True
    )
    for pair in pairs[np.lexsort((-pairs, counts))].tolist():  # the most frequent writes last
        nearest[pair // len(names)] = names[pair % len(names)]
    return nearest


def _build_page(figures: dict[str, Any], top: int) -> Page:
    settings, summary = figures["settings"], figures["round"]
    page = Page("Cleaning report", f"{figures['rows']:,} rows, {figures['faces']:,} usable faces")
    page.heading("Ingest").key_values(
        {
            "source": Path(settings["source"]).name,
            "kind": settings["kind"],
            "detector": settings["detector"],
            "faces of a picture": settings["policy"],
            "pictures": figures["pictures"],
            "rows": figures["rows"],
            "usable faces": figures["faces"],
            "rows without a usable face": figures["unusable"],
        }
    )
    if figures["reasons"]:
        rows = [(reason, count) for reason, count in figures["reasons"].items()]
        page.table(("reason", "rows"), rows, "Why a picture gave no usable face.")
    if summary is None:
        page.paragraph("Not cleaned yet: no round has been run.")
    else:
        _add_round(page, figures, summary)
        _add_identities(page, figures["identities"], top)
    _add_stages(page, figures["stages"])
    page.heading("Versions").key_values({"ingested with": _join(figures["ingested_with"])})
    page.key_values({"reported with": _join(versions())})
    return page


def _join(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())


_VALUES = (
    ("judged", "faces judged"),
    ("flagged", "flagged"),
    ("dropped", "dropped"),
    ("relabelled", "moved to another identity"),
    ("merged", "of joined identities"),
    ("split", "of split identities"),
    ("duplicates", "duplicates"),
    ("overlap", "in an evaluation set"),
    ("threshold", "threshold"),
    ("noise", "estimated share of wrong faces"),
    ("expected_wrong_drops", "expected wrong drops, share"),
    ("expected_missed", "expected missed, share"),
)


def _add_round(page: Page, figures: dict[str, Any], summary: dict[str, Any]) -> None:
    settings = summary.get("settings", {})
    values = {
        "check": settings.get("check"),
        "model": f"{summary.get('model', '')} ({summary.get('runtime', '')})",
        "model hash": settings.get(_MODEL),
        "rows decided": figures["decided"],
    }
    values |= {title: summary.get(name) for name, title in _VALUES}
    if "threshold_found" in summary:
        origin = "the set's own scores" if summary["threshold_found"] else "the user"
        values["threshold from"] = origin
    found = {name: value for name, value in values.items() if value is not None}
    page.heading("Decisions").key_values(found)
    reasons = list(summary.get("reasons", {}).items())
    if reasons:
        page.table(("reason", "faces"), reasons, "What was decided on faces, and why.")
    _add_rounds(page, figures["rounds"])
    _add_histogram(page, summary)
    _add_drops(page, summary.get("drops_by", []))


def _add_rounds(page: Page, rounds: list[dict[str, Any]]) -> None:
    """Add the table of rounds, with the columns that some round has a figure for."""
    names = [name for name in _COLUMNS if any(entry[name] is not None for entry in rounds)]
    columns = ("round", *(name.replace("flagged_share", "share flagged") for name in names))
    table = [[entry[name] for name in ("round", *names)] for entry in rounds]
    page.table(columns, table, "The rounds that count.")


def _add_drops(page: Page, shares: list[dict[str, Any]]) -> None:
    """Add whom the drops hit: hard but clean faces must survive."""
    names = ("rows", "dropped", "share", "low", "high")
    rows = [[f"{one['column']} {one['value']}", *(one[name] for name in names)] for one in shares]
    if rows:
        page.table(
            ("part", "faces", "dropped", "share", "95 % from", "to"),
            rows,
            "Share of the faces dropped, by tenth of quality (1 is the poorest), source and split.",
        )


def _add_histogram(page: Page, summary: dict[str, Any]) -> None:
    if not summary.get("histograms") or summary.get("threshold") is None:
        page.paragraph("The round recorded no histogram of its scores.")
        return
    own = np.array(summary["histograms"]["own"])
    strangers = np.array(summary["histograms"]["strangers"][0])
    series = {
        "own centre": (MIDS, _density(own)),
        "other identities' centres": (MIDS, _density(strangers)),
    }
    figure = build_line_plot(
        series,
        "cosine",
        "density",
        lines={f"threshold {summary['threshold']:.3f}": summary["threshold"]},
        markers=False,
    )
    page.figure(
        figure,
        "Density of the faces' scores against their own identity's centre and against those of "
        f"other identities; the threshold lies at {summary['threshold']:.3f}.",
        "Right faces score high against their own centre; what lies among the others' scores does "
        "not belong.",
    )


def _density(counts: Any) -> Any:
    """Return a histogram as a density, four bins together."""
    wide = counts.reshape(-1, 4).sum(axis=1).repeat(4)
    return wide / max(int(wide.sum()), 1) / (EDGES[1] - EDGES[0])


def _add_identities(page: Page, identities: list[dict[str, Any]], top: int) -> None:
    page.heading("Identities")
    hit = sum(entry["dropped"] > 0 for entry in identities)
    page.paragraph(
        f"{hit:,} of {len(identities):,} identities lose a face. The table shows the first "
        f"{min(top, len(identities)):,}, the greatest share of drops first; report.json has all."
    )
    names = ("identity", "faces", "dropped", "share", "median_score", "lowest_score")
    page.table(
        [*(name.replace("_", " ") for name in names), "dropped faces are nearest to"],
        [[entry[n] for n in (*names, "nearest_other")] for entry in identities[:top]],
        "Identities, worst first.",
    )


def _add_stages(page: Page, stages: list[dict[str, Any]]) -> None:
    rows = []
    for stage in stages:
        rate = stage["count"] / stage["seconds"] if stage["seconds"] > 0 else None
        what = f"{stage['stage']} (round {stage['round']})" if "round" in stage else stage["stage"]
        rows.append((what, stage["seconds"], f"{stage['count']:,} {stage['unit']}", rate))
    page.heading("Time")
    page.table(("stage", "seconds", "of", "a second"), rows, "Wall time of each stage.")


def _add_pictures(page: Page, folder: SetFolder, rows: Rows | None) -> None:
    from data_tools.spaces import read_chip

    page.heading("Dropped faces")
    if rows is None:
        page.paragraph("Not cleaned yet: nothing was dropped.")
        return
    gone = pc.and_(pc.is_null(rows.table["fate"]), pc.is_valid(rows.table["own"]))
    dropped = rows.table.filter(gone)
    keys = [("own", "ascending"), ("path", "ascending")]
    shown = dropped.take(pc.sort_indices(dropped, keys)[:_MAX_PICTURES]).to_pylist()
    page.paragraph(f"{len(shown):,} of {dropped.num_rows:,} dropped faces, the lowest score first.")
    images = [read_chip(folder.root / row["chip"]) for row in shown]
    labels = [f"{row['identity']}: {row['own']:.2f} ({row['path']})" for row in shown]
    page.pictures(images, labels)
