"""The review site of a set: static pages from which people judge rows, paged for large sets.

`review/` lies in the set folder and opens from disk. It is written beside and renamed, and only
when the log or the settings changed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_tools.decisions import Log, read_log
from data_tools.review_answers import EARLIER, SAMPLE, SITE, write_sample
from data_tools.review_figures import draw_histogram, draw_sankey
from data_tools.review_flows import Flow, count_flows
from data_tools.review_names import dump_script, write_names
from data_tools.review_pages import Pages, Sheets, build_cards, link_pages, name_page
from data_tools.review_rows import Groups, Rows, collect_rows, find_densities, group_rows
from data_tools.review_sample import DROPPED, KEPT, plan_sample
from data_tools.sets import SetFolder, open_set, read_info
from facerec.checks import check_whole
from facerec.io import read_json, sha256_bytes, write_json, write_text
from facerec.pages import format_cell
from facerec.progress import Progress

FORMAT = 1
"""Raised whenever the same log would make other pages."""

_STAMP = "site.json"
_BEST, _ROUNDS_DRAWN = 25, 6
_FIGURES = (
    ("model", "model"),
    ("judged", "rows judged"),
    ("threshold", "threshold of the own score"),
    ("keep_at", "least chance of the own identity to stay"),
    ("move_at", "least chance of another identity to move"),
    ("noise", "estimated share of wrong labels before cleaning"),
)


def write_review(
    out: Path,
    *,
    with_images: bool = False,
    per_page: int = 100,
    rows: int = 30,
    sample: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """Write `review/` into a set folder, unless it is of this log and these settings already.

    Args:
        out: a set folder with at least one round.
        with_images: show the chips, as links to their files: real people.
        per_page: identities a page, at least 1.
        rows: rows shown of an identity, those in doubt first, at least 1.
        sample: rows in the sample for the residual noise, at least 40.
        seed: of the sample.

    Returns:
        page (path of `index.html`), written (False when it was there), identities, rows (of
        identities), pages, gain (expected wrong decisions), sample (rows drawn), log (digest).

    Raises:
        InputError: no set, in use, no round with scores, or a number out of range.
    """
    check_whole(per_page, "per_page", 1, 100_000)
    check_whole(rows, "rows", 1, 1_000_000)
    folder = open_set(out)
    settings = {
        "with_images": with_images,
        "per_page": per_page,
        "rows": rows,
        "sample": sample,
        "seed": seed,
    }
    with folder.lock("review"):
        site = folder.root / SITE
        _recover(folder)
        log = read_log(folder.log)
        stamp = {"format": FORMAT, "log": log.digest, "settings": settings}
        if (old := _read_stamp(site)) is not None and {k: old.get(k) for k in stamp} == stamp:
            return {**old["figures"], "page": str(site / "index.html"), "written": False}
        partial = folder.root / f".{SITE}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        figures = _write_site(folder, log, partial, settings)
        _keep_samples(site, partial, old)
        write_json(partial / _STAMP, {**stamp, "figures": figures})
        _swap(folder)
    return {**figures, "page": str(site / "index.html"), "written": True}


def _write_site(
    folder: SetFolder, log: Log, site: Path, settings: Mapping[str, Any]
) -> dict[str, Any]:
    found = collect_rows(folder, log)
    drawn = plan_sample(found.table, settings["sample"], settings["seed"])
    flows = count_flows(found.table, log.active)
    groups = group_rows(found.table)
    sheets = Sheets.build(groups, settings["per_page"], settings["rows"], settings["with_images"])
    source = json.dumps(read_info(folder).get("settings"), sort_keys=True, default=str)
    pages = Pages(sha256_bytes(source.encode())[:16])
    write_sample(site / SAMPLE, drawn)
    cards = build_cards(drawn, groups, settings["with_images"])
    _write_cards(pages, cards, site, settings["per_page"])
    _write_sheets(pages, sheets, site)
    figures = {
        "identities": len(groups.names),
        "rows": groups.table.num_rows,
        "pages": sheets.count,
        "gain": float(groups.gains.sum()),
        "sample": drawn.num_rows,
        "log": log.digest,
    }
    firsts = write_names(site, groups.names.to_pylist(), sheets.per_page)
    text = _render_index(pages, found, sheets, drawn, flows, firsts)
    write_text(site / "index.html", text)
    return figures


def _write_sheets(pages: Pages, sheets: Sheets, site: Path) -> None:
    legend = "" if sheets.with_images else "Pictures are shown with --with-images only."
    with Progress("review", sheets.count, "pages") as progress:
        for page in range(sheets.count):
            first, end = sheets.find_range(page)
            text = pages.render(
                "review_identities.html",
                title=f"Identities, page {page + 1} of {sheets.count}",
                subtitle=f"Identities {first + 1:,} to {end:,} of {len(sheets.groups.names):,}.",
                links=link_pages("identities", page, sheets.count),
                legend=legend,
                groups=sheets.build_page(page),
            )
            write_text(site / name_page("identities", page), text)
            progress.advance()


def _write_cards(pages: Pages, cards: Sequence[dict[str, Any]], site: Path, per_page: int) -> None:
    count = max(1, -(-len(cards) // per_page))
    for page in range(count):
        text = pages.render(
            "review_sample.html",
            title=f"Sample, page {page + 1} of {count}",
            subtitle=f"{len(cards):,} rows, drawn at random.",
            links=link_pages("sample", page, count),
            rows=cards[page * per_page : (page + 1) * per_page],
        )
        write_text(site / name_page("sample", page), text)


def _render_index(
    pages: Pages,
    found: Rows,
    sheets: Sheets,
    drawn: pa.Table,
    flows: Sequence[Flow],
    firsts: Sequence[str],
) -> str:
    summary, groups = found.round.summary, sheets.groups
    histogram, caption = _draw_scores(summary)
    shown = list(flows)[:_ROUNDS_DRAWN]
    return pages.render(
        "review_index.html",
        title="Review of a cleaned set",
        subtitle=f"{len(groups.names):,} identities, {groups.table.num_rows:,} rows, "
        f"scores of round {found.round.number}.",
        links=[
            {"text": "Identities with most to gain", "href": name_page("identities", 0)},
            {"text": "Sample", "href": name_page("sample", 0)},
        ],
        summary=_summarise(found, groups),
        remarks=_remark(found),
        best=_list_best(sheets),
        sample=_describe_sample(drawn),
        histogram=pages.mark_safe(histogram) if histogram else "",
        histogram_caption=caption,
        sankey=pages.mark_safe(draw_sankey(shown)),
        sankey_caption="Filled bars are in the clean set, hollow ones out of it."
        + (f" The first {len(shown)} of {len(flows)} rounds." if len(shown) < len(flows) else ""),
        flows=_list_flows(flows),
        pages=_list_pages(sheets),
        firsts=pages.mark_safe(dump_script(list(firsts))),
    )


def _summarise(found: Rows, groups: Groups) -> list[tuple[str, str]]:
    summary = found.round.summary
    left_out = found.table.num_rows - groups.table.num_rows
    values: dict[str, Any] = {
        "expected wrong decisions": float(groups.gains.sum()),
        "usable rows": found.table.num_rows,
        "rows without identity": left_out,
    }
    values |= {title: summary[name] for name, title in _FIGURES if summary.get(name) is not None}
    return [(name, format_cell(value)) for name, value in values.items()]


def _remark(found: Rows) -> list[str]:
    remarks = [
        "The expected number of wrong decisions is the sum of the doubts: of a row that stays, the "
        "chance that it shows somebody else; of one that was dropped, the chance that it was right."
    ]
    absent = set(found.absent) - {"quality"}
    if absent:
        remarks.append(f"The round's scores lack {', '.join(sorted(absent))}: left out here.")
    if "p_own" in absent:
        remarks.append("Doubts follow from the own score alone, as the round kept no chances.")
    return remarks


def _draw_scores(summary: Mapping[str, Any]) -> tuple[str, str]:
    own = (summary.get("histograms") or {}).get("own")
    if not own:
        return "", ""
    densities = find_densities(dict(summary))
    figure = draw_histogram(own, summary.get("threshold"), densities)
    lines = " Solid line: expected right rows, dashed: expected wrong rows." if densities else ""
    return figure, f"Bars are judged rows by their score; the dotted line is the threshold.{lines}"


def _list_best(sheets: Sheets) -> dict[str, Any]:
    groups = sheets.groups
    count = min(_BEST, len(groups.names))
    sizes = np.diff(groups.starts)
    rows = [
        (
            {"text": name, "href": sheets.link(place)},
            format_cell(int(sizes[place])),
            f"{groups.gains[place]:.2f}",
        )
        for place, name in enumerate(groups.names[:count].to_pylist())
    ]
    columns = ("identity", "rows", "expected wrong decisions")
    return {"caption": "Most expected wrong decisions first.", "columns": columns, "rows": rows}


def _describe_sample(drawn: pa.Table) -> dict[str, Any]:
    rows = []
    for side, what in ((KEPT, "in the clean set"), (DROPPED, "dropped")):
        mine = drawn.filter(pc.equal(drawn["side"], side))
        strata = np.asarray(mine["stratum"].to_numpy())
        for stratum in np.unique(strata).tolist():
            here = mine.filter(pc.equal(mine["stratum"], stratum)).to_pydict()
            rows.append(
                (
                    f"{what}, stratum {stratum + 1}",
                    f"{here['stratum_rows'][0]:,}",
                    f"{len(here['path']):,}",
                    f"{here['inclusion'][0]:.4g}",
                    f"{float(np.mean(here['doubt'])):.2%}",
                )
            )
    columns = ("part", "rows", "drawn", "probability to be drawn", "mean doubt of those drawn")
    sentences = [
        f"{drawn.num_rows:,} rows were drawn at random, more where a decision is in doubt. Judge "
        "them, save the verdicts, and facerec-clean review SET --verdicts verdicts.csv prints the "
        "share of wrong rows in the clean set and of right rows among the dropped, each with a "
        "95 % interval.",
    ]
    table = {"caption": "How the sample was drawn.", "columns": columns, "rows": rows}
    return {"sentences": sentences, "table": table}


def _list_flows(flows: Sequence[Flow]) -> dict[str, Any]:
    rows = [
        (f"round {flow.round}", before, after, f"{count:,}")
        for flow in flows
        for (before, after), count in flow.counts.items()
    ]
    columns = ("round", "before", "after", "rows")
    return {"caption": "The same as a table.", "columns": columns, "rows": rows}


def _list_pages(sheets: Sheets) -> dict[str, Any]:
    rows = []
    gains = np.append(0.0, np.cumsum(sheets.groups.gains))
    for page in range(sheets.count):
        first, end = sheets.find_range(page)
        link = {"text": f"page {page + 1}", "href": name_page("identities", page)}
        share = gains[end] / gains[-1] if gains[-1] > 0 else 1.0
        rows.append((link, f"{end - first:,}", f"{gains[end] - gains[first]:.2f}", f"{share:.1%}"))
    columns = ("page", "identities", "expected wrong decisions", "of all, up to here")
    return {"caption": "Pages of identities.", "columns": columns, "rows": rows}


def _read_stamp(site: Path) -> dict[str, Any] | None:
    path = site / _STAMP
    found = read_json(path) if path.is_file() else None
    return found if isinstance(found, dict) else None


def _keep_samples(site: Path, partial: Path, old: Mapping[str, Any] | None) -> None:
    """Take over the samples of earlier logs: verdicts on them may still come."""
    if old is None or not (site / SAMPLE).is_file():
        return
    earlier = partial / EARLIER
    earlier.mkdir(exist_ok=True)
    for file in (site / EARLIER).glob("*.csv"):
        shutil.copyfile(file, earlier / file.name)
    settings = old.get("settings") or {}
    name = f"{old.get('log', '')[:12]}-{settings.get('sample')}-{settings.get('seed')}.csv"
    shutil.copyfile(site / SAMPLE, earlier / name)


def _swap(folder: SetFolder) -> None:
    """Put the new site in the place of the old one."""
    site, old = folder.root / SITE, folder.root / f".{SITE}.old"
    shutil.rmtree(old, ignore_errors=True)
    if site.exists():
        site.rename(old)
    (folder.root / f".{SITE}.partial").rename(site)
    shutil.rmtree(old, ignore_errors=True)


def _recover(folder: SetFolder) -> None:
    """Put the old site back if a process was killed between taking it away and the new one."""
    site, old = folder.root / SITE, folder.root / f".{SITE}.old"
    if old.is_dir() and not site.exists():
        old.rename(site)
