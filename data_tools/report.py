"""What a set holds and what cleaning did to it: one HTML page and the same figures as JSON."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_tools.decisions import Log, find_dropped, read_log
from data_tools.rounds import read_chip
from data_tools.sets import SetFolder, open_set, read_info
from data_tools.thresholds import EDGES, MIDS
from facerec.checks import InputError
from facerec.data.manifest import read_manifest
from facerec.io import sha256_file
from facerec.pages import Page, build_line_plot
from facerec.provenance import versions, write_result

_MAX_PICTURES = 200


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
    figures = build_figures(folder)
    dropped = _list_dropped(folder)
    page = _build_page(figures, top)
    if with_images:
        _add_pictures(page, folder, dropped)
    hashes = {"manifest": sha256_file(folder.manifest)}
    if figures["round"] is not None:
        hashes["model"] = figures["round"]["settings"]["model_sha256"]
    config = {"with_images": with_images, "top": top}
    for path in (folder.root / "report.json", json_path):
        if path is not None:
            write_result(path, figures, config=config, hashes=hashes)
    return page.write(folder.root / "report.html"), figures


def build_figures(folder: SetFolder) -> dict[str, Any]:
    """Return the figures of a set: ingest, stages, rounds, the last round, each identity."""
    info, log = read_info(folder), read_log(folder.log)
    manifest = read_manifest(folder.manifest)
    reasons = Counter(reason for reason in manifest["reason"].to_pylist() if reason)
    rows, unusable = manifest.num_rows, sum(reasons.values())
    last = log.active[-1] if log.active else None
    return {
        "settings": info["settings"],
        "ingested_with": info["versions"],
        "rows": rows,
        "pictures": len(set(manifest["path"].to_pylist())),
        "faces": rows - unusable,
        "unusable": unusable,
        "reasons": dict(reasons.most_common()),
        "stages": info["stages"],
        "rounds": [_describe_round(entry.summary, entry.number) for entry in log.active],
        "round": None if last is None else {"number": last.number, **last.summary},
        "decided": len({decision.key for decision in log.decisions()}),
        "identities": _count_identities(folder, log),
    }


def _describe_round(summary: dict[str, Any], number: int) -> dict[str, Any]:
    names = ("model", "judged", "kept", "dropped", "restored", "threshold", "threshold_found")
    judged = summary["judged"]
    share = summary["flagged"] / judged if judged else 0.0
    return {"round": number, **{name: summary[name] for name in names}, "flagged_share": share}


def _read_scores(folder: SetFolder, log: Log) -> dict[str, list[Any]]:
    table = pq.read_table(folder.scores(log.active[-1].number), partitioning=None)
    columns: dict[str, list[Any]] = table.to_pydict()
    return columns


def _count_identities(folder: SetFolder, log: Log) -> list[dict[str, Any]]:
    """Return each identity's figures after the last round, the greatest share of drops first."""
    if not log.active:
        return []
    columns, gone = _read_scores(folder, log), find_dropped(log.decisions())
    rows: dict[str, list[int]] = {}
    for row, identity in enumerate(columns["identity"]):
        if identity:
            rows.setdefault(identity, []).append(row)
    figures: list[dict[str, Any]] = []
    for identity, mine in rows.items():
        dropped = [r for r in mine if (columns["path"][r], columns["face"][r]) in gone]
        own = [columns["own"][r] for r in mine if columns["own"][r] is not None]
        others = Counter(columns["other_identity"][r] for r in dropped)
        figures.append(
            {
                "identity": identity,
                "faces": len(mine),
                "dropped": len(dropped),
                "share": len(dropped) / len(mine),
                "median_score": float(np.median(own)) if own else None,
                "lowest_score": min(own) if own else None,
                "nearest_other": others.most_common(1)[0][0] if others else "",
            }
        )
    figures.sort(key=lambda entry: (-entry["share"], -entry["dropped"], entry["identity"]))
    return figures


def _list_dropped(folder: SetFolder) -> list[tuple[float, str, str]]:
    """Return (score, chip, label) of the dropped faces, lowest score first."""
    log = read_log(folder.log)
    if not log.active:
        return []
    columns, gone = _read_scores(folder, log), find_dropped(log.decisions())
    dropped = []
    for row, key in enumerate(zip(columns["path"], columns["face"], strict=True)):
        if key in gone and columns["own"][row] is not None:
            score = columns["own"][row]
            label = f"{columns['identity'][row]}: {score:.2f} ({key[0]})"
            dropped.append((score, columns["chip"][row], label))
    return sorted(dropped)


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


def _add_round(page: Page, figures: dict[str, Any], summary: dict[str, Any]) -> None:
    judged = summary["judged"]
    values = {
        "check": summary["settings"]["check"],
        "model": f"{summary['model']} ({summary['runtime']})",
        "model hash": summary["settings"]["model_sha256"],
        "rows decided": figures["decided"],
        "faces judged": judged,
        "flagged": summary["flagged"],
        "share flagged": summary["flagged"] / judged if judged else 0.0,
        "dropped": summary["dropped"],
        "threshold": summary["threshold"],
        "threshold from": "the set's own scores" if summary["threshold_found"] else "the user",
    }
    if summary["noise"] is not None:
        values["estimated share of wrong faces"] = summary["noise"]
        values["expected wrong drops, share"] = summary["expected_wrong_drops"]
        values["expected missed, share"] = summary["expected_missed"]
    page.heading("Decisions").key_values(values)
    rows = [(reason, count) for reason, count in summary["reasons"].items()]
    page.table(("reason", "faces"), rows, "What was decided on faces, and why.")
    columns = ("round", "kept", "dropped", "restored", "threshold", "share flagged")
    names = ("round", "kept", "dropped", "restored", "threshold", "flagged_share")
    table = [[entry[name] for name in names] for entry in figures["rounds"]]
    page.table(columns, table, "The rounds that count.")
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


def _add_pictures(page: Page, folder: SetFolder, dropped: list[tuple[float, str, str]]) -> None:
    page.heading("Dropped faces")
    shown = dropped[:_MAX_PICTURES]
    page.paragraph(f"{len(shown):,} of {len(dropped):,} dropped faces, the lowest score first.")
    images = [read_chip(folder.root / chip) for _, chip, _ in shown]
    page.pictures(images, [label for _, _, label in shown])
