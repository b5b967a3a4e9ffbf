"""The review's pages: contact sheets of identities and of the sample, rendered slice by slice."""

from __future__ import annotations

import base64
import hashlib
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import facerec
from data_tools.centres import Mask
from data_tools.review_rows import Groups, Ints, take_floats
from facerec.checks import require

_OUT = {
    "duplicate": "out, a duplicate",
    "overlap": "out, in an evaluation set",
    "drop": "dropped",
}
_MOVED = {"relabel": "moved to", "merge": "joined to", "split": "split off to"}
_REFERENCES = 5
_TWIN_SHARE, _TWIN_LIKENESS = 0.5, 0.8


class Pages:
    """Renders the templates of the review.

    Args:
        set_id: names the set to the browser's store of verdicts.
    """

    def __init__(self, set_id: str) -> None:
        jinja2 = require("jinja2")
        markup = require("markupsafe").Markup
        folder = Path(facerec.__file__).with_name("templates")
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        script = (folder / "review_script.html").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        self._markup = markup
        self._shared = {
            "script": markup(script),
            "style": markup((folder / "review_style.html").read_text(encoding="utf-8")),
            # Only this script may run, whatever a name smuggles in.
            "script_hash": f"sha256-{digest}",
            "set_id": set_id,
            "version": facerec.__version__,
        }

    def render(self, template: str, **values: Any) -> str:
        """Return a page; every text in `values` is escaped, except that of `mark_safe`."""
        text: str = self._environment.get_template(template).render(**self._shared, **values)
        return text

    def mark_safe(self, text: str) -> Any:
        """Return text that is HTML already (our own SVG, or `dump_script`'s)."""
        return self._markup(text)


@dataclass(frozen=True)
class Sheets:
    """What the contact sheets show, by row of `groups.table`.

    Attributes:
        groups: the rows.
        other: int64 (n,), place of the other identity, -1 for none.
        out: bool (n,), not in the clean set.
        moved: bool (n,), in it under another identity than the given one.
        per_page: identities a page.
        shown: rows shown of an identity.
        with_images: show the chips.
    """

    groups: Groups
    other: Ints
    out: Mask
    moved: Mask
    per_page: int
    shown: int
    with_images: bool

    @classmethod
    def build(cls, groups: Groups, per_page: int, shown: int, with_images: bool) -> Sheets:
        """Return the sheets of grouped rows."""
        table = groups.table
        out = pc.is_null(table["fate"]).to_numpy()
        differs = pc.not_equal(pc.fill_null(table["fate"], ""), table["identity"]).to_numpy()
        return cls(
            groups,
            groups.find(table["other_identity"]),
            out,
            ~out & differs,
            per_page,
            shown,
            with_images,
        )

    @property
    def count(self) -> int:
        """Pages there are, at least one."""
        return max(1, -(-len(self.groups.names) // self.per_page))

    def link(self, place: int) -> str:
        """Return the address of an identity's section."""
        return f"{name_page('identities', place // self.per_page)}#i{place + 1}"

    def find_range(self, page: int) -> tuple[int, int]:
        """Return the identities of a page, from 0: first and behind the last."""
        first = page * self.per_page
        return first, min(first + self.per_page, len(self.groups.names))

    def build_page(self, page: int) -> list[dict[str, Any]]:
        """Return the sections of a page, from 0."""
        first, end = self.find_range(page)
        names = self.groups.names[first:end].to_pylist()
        return [self._build_group(first + i, name) for i, name in enumerate(names)]

    def _build_group(self, place: int, name: str) -> dict[str, Any]:
        start, end = (int(at) for at in self.groups.starts[place : place + 2])
        taken = min(end - start, self.shown)
        rows = self.groups.table.slice(start, taken).to_pylist()
        others = self._name_others(start, taken)
        out, moved = int(self.out[start:end].sum()), int(self.moved[start:end].sum())
        told = f"{end - start - out - moved:,} stay, {moved:,} moved, {out:,} out"
        left = end - start - taken
        return {
            "rank": place + 1,
            "name": name,
            "summary": f"{end - start:,} rows: {told}. "
            f"Expected wrong decisions: {self.groups.gains[place]:.2f}.",
            "twin": self._find_twin(start, end),
            "rows": [
                self._build_row(row, name, *other) for row, other in zip(rows, others, strict=True)
            ],
            "rest": f"{left:,} more rows, less in doubt than these." if left else "",
        }

    def _name_others(self, start: int, count: int) -> list[tuple[str, str]]:
        places = self.other[start : start + count]
        names = self.groups.names.take(pa.array(places, mask=places < 0)).to_pylist()
        return [
            (name, self.link(place)) if name is not None else ("", "")
            for name, place in zip(names, places.tolist(), strict=True)
        ]

    def _build_row(
        self, row: dict[str, Any], group: str, other_name: str, other_href: str
    ) -> dict[str, Any]:
        fate, given = row["fate"], row["identity"]
        moved = fate is not None and fate != given
        state = "restored" if row["action"] == "restore" else "kept"
        if fate is None:
            state = _OUT.get(row["action"], "out")
        elif moved:
            state = _MOVED.get(row["action"], "moved to")
        chip = address_chip(row["chip"]) if self.with_images and row["chip"] else ""
        return {
            "path": row["path"],
            "image_id": row["image_id"],
            "face": row["face"],
            "name": PurePosixPath(row["path"]).name,
            "mark": "out" if fate is None else "moved" if moved else "",
            "chip": chip,
            "alt": f"Face given as {group}",
            "state": state,
            "fate": fate if moved else "",
            "reason": row["reason"] or "",
            "scores": _word_scores(row),
            "other_name": other_name,
            "other_href": other_href,
            "chances": _word_chances(row),
        }

    def _find_twin(self, start: int, end: int) -> dict[str, str] | None:
        """Return the identity that most rows are nearly as like as their own, if there is one."""
        others = self.other[start:end]
        known = np.flatnonzero(others >= 0)
        if not len(known):
            return None
        places, counts = np.unique(others[known], return_counts=True)
        best = int(np.argmax(counts))
        if counts[best] < max(2.0, _TWIN_SHARE * (end - start)):
            return None
        mine = self.groups.table.slice(start, end - start)
        same = others == places[best]
        own, other = take_floats(mine, "own")[same], take_floats(mine, "other")[same]
        scored = ~(np.isnan(own) | np.isnan(other))
        if not scored.any() or other[scored].mean() < _TWIN_LIKENESS * max(own[scored].mean(), 0.1):
            return None
        place = int(places[best])
        return {"name": self.groups.names[place].as_py(), "href": self.link(place)}


def build_cards(sample: pa.Table, groups: Groups, with_images: bool) -> list[dict[str, Any]]:
    """Return the cards of a sample: what is asked, and typical rows to compare with.

    Args:
        sample: of `data_tools.review_sample.plan_sample`.
        groups: the rows by identity.
        with_images: show the chips.
    """
    dropped = pc.equal(sample["fate"], "")
    asked = pc.if_else(dropped, sample["given"], sample["fate"])
    typical = _find_typical(groups.table, asked)
    chips = _find_chips(sample, groups) if with_images else [""] * sample.num_rows
    cards = []
    names = asked.to_pylist()
    for number, (row, name, chip) in enumerate(
        zip(sample.to_pylist(), names, chips, strict=True), start=1
    ):
        others = [one for one in typical.get(name, []) if one[0] != row["path"]][:_REFERENCES]
        cards.append(
            {
                "number": number,
                "name": name,
                "path": row["path"],
                "file": PurePosixPath(row["path"]).name,
                "image_id": row["image_id"],
                "face": row["face"],
                "chip": chip,
                "others": [address_chip(c) for _, c in others if c]
                if with_images
                else [path for path, _ in others],
            }
        )
    return cards


def name_page(kind: str, page: int) -> str:
    """Return the file name of a page, from 0: "identities-0001.html"."""
    return f"{kind}-{page + 1:04d}.html"


def link_pages(kind: str, page: int, count: int) -> list[dict[str, str]]:
    """Return the links at the head of a page: index, first, previous and next."""
    links = [{"text": "Index", "href": "index.html"}]
    if page > 0:
        links.append({"text": "Previous page", "href": name_page(kind, page - 1)})
    if page + 1 < count:
        links.append({"text": "Next page", "href": name_page(kind, page + 1)})
    return links


def address_chip(chip: str) -> str:
    """Return a chip's address as seen from the review's folder."""
    return "../" + urllib.parse.quote(chip)


def _find_chips(sample: pa.Table, groups: Groups) -> list[str]:
    """Return the address of each sampled row's chip."""
    from data_tools.log_state import locate_rows

    places = locate_rows(sample, groups.table)
    chips = groups.table["chip"].take(pa.array(places, mask=places < 0)).to_pylist()
    return [address_chip(chip) if chip else "" for chip in chips]


def _find_typical(table: pa.Table, names: pa.ChunkedArray) -> dict[str, list[tuple[str, str]]]:
    """Return (path, chip) of the core rows that are most like each identity, six at most."""
    wanted = pc.unique(names)
    code = pc.fill_null(pc.index_in(table["fate"], value_set=wanted), -1).to_numpy()
    core = pc.fill_null(table["core"], True).to_numpy()
    rows = np.flatnonzero((code >= 0) & core)
    own = np.nan_to_num(take_floats(table, "own")[rows], nan=-2.0)
    rows = rows[np.lexsort((-own, code[rows]))]
    found: dict[str, list[tuple[str, str]]] = {}
    starts = np.searchsorted(code[rows], np.arange(len(wanted)))
    for name, start, end in zip(
        wanted.to_pylist(), starts, np.append(starts[1:], len(rows)), strict=True
    ):
        best = rows[start : min(end, start + _REFERENCES + 1)]
        taken = table.select(["path", "chip"]).take(pa.array(best)).to_pydict()
        found[name] = list(zip(taken["path"], taken["chip"], strict=True))
    return found


def _word_scores(row: Mapping[str, Any]) -> str:
    own, other = row["own"], row["other"]
    words = []
    if own is not None:
        words.append(f"own {own:.2f}")
    if other is not None:
        words.append(f"nearest other {other:.2f}")
    if row["quality"] is not None:
        words.insert(0, f"quality {row['quality']:.3g}")
    return " · ".join(words) or "no score"


def _word_chances(row: Mapping[str, Any]) -> str:
    chances: Sequence[tuple[str, float | None]] = (
        ("own", row["p_own"]),
        ("other", row["p_other"]),
        ("nobody known", row["p_nobody"]),
    )
    words = [f"{name} {value:.1%}" for name, value in chances if value is not None]
    doubt = f"doubt {row['doubt']:.1%}"
    return f"Chance to show: {', '.join(words)}; {doubt}" if words else doubt.capitalize()
