"""What there is to review: every usable row of a set, its fate, and the chance that it is wrong.

Columns, never row objects: 2 M rows take a few hundred megabytes. Sorted once, so that a page is a
slice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_tools.centres import Array
from data_tools.decisions import REVIEW, Log, Round
from data_tools.log_state import find_fates
from data_tools.sets import SetFolder
from data_tools.thresholds import BINS, bin_scores, split_scores
from facerec.checks import InputError

Ints = NDArray[np.int64]

COLUMNS: dict[str, pa.DataType] = {
    "image_id": pa.string(),
    "path": pa.string(),
    "face": pa.int32(),
    "identity": pa.string(),
    "chip": pa.string(),
    "own": pa.float64(),
    "other": pa.float64(),
    "other_identity": pa.string(),
    "size": pa.int64(),
    "core": pa.bool_(),
    "p_own": pa.float64(),
    "p_other": pa.float64(),
    "p_nobody": pa.float64(),
    "quality": pa.float64(),
}
"""Columns of a score table that the review shows; one that is absent is null."""

_NEEDED = frozenset({"path", "face", "identity", "chip"})
_LOGGED = ("path", "face", "to", "round", "check", "action", "score", "threshold", "reason")
UNDOUBTED = frozenset(
    {REVIEW, "same picture", "evaluation overlap", "quality", "embedding", "ingest"}
)
"""Checks that did not decide by who is shown: a probability of that says nothing of them."""
_WIDTH = 0.05


@dataclass(frozen=True)
class Rows:
    """The rows of the last round with scores, with what the log made of them since.

    Attributes:
        round: that round; its summary has histograms and thresholds.
        table: n rows, the columns of `COLUMNS`, then of the log's last word on each row: `fate`
            (identity, null = not in the clean set), `check`, `action`, `reason`, `round` (null
            where there was no decision), and `doubt` (chance that the fate is wrong, in [0, 1]).
        absent: columns that the score table did not have.
    """

    round: Round
    table: pa.Table
    absent: tuple[str, ...]


@dataclass(frozen=True)
class Groups:
    """Rows by identity, the identity that gains most from a look first, its worst row first.

    Attributes:
        table: the rows that belong to an identity, sorted so.
        names: text (g,), the identities in that order.
        starts: int64 (g + 1,), where each identity's rows begin in `table`.
        gains: float64 (g,), the expected number of wrong decisions in each.
    """

    table: pa.Table
    names: pa.Array
    starts: Ints
    gains: Array

    def find(self, names: pa.ChunkedArray) -> Ints:
        """Return the place of each identity, -1 for what is none or null."""
        places = pc.fill_null(pc.index_in(names, value_set=self.names), -1)
        return np.asarray(places.to_numpy(), np.int64)


def collect_rows(folder: SetFolder, log: Log) -> Rows:
    """Return the rows to review.

    Raises:
        InputError: no round of the log has scores.
    """
    scored = [entry for entry in log.active if folder.scores(entry.number).is_file()]
    if not scored:
        raise InputError(
            f"{folder.root} has no round with scores; run: facerec-clean run {folder.root} "
            "--model MODEL"
        )
    table, absent = _read_scores(folder, scored[-1].number)
    tables = [entry.read(_LOGGED) for entry in log.active]
    fates = find_fates(table, tables)
    places = pa.array(fates.decided, mask=fates.decided < 0)
    last = pa.concat_tables(tables).select(_LOGGED[3:]).take(places)
    table = table.append_column("fate", fates.take_names(fates.codes))
    for name in _LOGGED[3:]:
        table = table.append_column(name, last[name])
    doubt = _find_doubt(table, scored[-1].summary)
    table = table.drop_columns(["score", "threshold"]).append_column("doubt", pa.array(doubt))
    return Rows(scored[-1], table, absent)


def group_rows(table: pa.Table) -> Groups:
    """Return rows by the identity they were given; one without, by the identity it ended in.

    An identity's gain is the sum of its rows' doubts: the number of wrong decisions that a look at
    it is expected to mend. Ties go by name, and among rows by the lower own score, then by place.

    Args:
        table: of `collect_rows`.
    """
    group = pc.if_else(pc.equal(table["identity"], ""), table["fate"], table["identity"])
    group = pc.fill_null(group, "")
    held = np.flatnonzero(pc.not_equal(group, "").to_numpy())
    encoded = group.take(pa.array(held)).combine_chunks().dictionary_encode()
    codes, names = encoded.indices.to_numpy().astype(np.int64), encoded.dictionary
    doubt = table["doubt"].to_numpy()[held]
    gains = np.bincount(codes, weights=doubt, minlength=len(names)).astype(np.float64)
    by_name = np.empty(len(names), np.int64)
    by_name[pc.array_sort_indices(names).to_numpy()] = np.arange(len(names))
    # Sums of the same doubts in another order differ in their last digits.
    order = np.lexsort((by_name, -np.round(gains, 9)))
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    own = np.nan_to_num(take_floats(table, "own")[held], nan=-2.0)
    rows = held[np.lexsort((own, -np.round(doubt, 9), rank[codes]))]
    starts = np.append(0, np.cumsum(np.bincount(rank[codes], minlength=len(names))))
    return Groups(_take(table, rows), names.take(pa.array(order)), starts, gains[order])


def take_floats(table: pa.Table, name: str) -> Array:
    """Return a column as float64, NaN for null."""
    column = pc.fill_null(pc.cast(table[name], pa.float64()), float("nan"))
    return np.asarray(column.to_numpy(), np.float64)


def find_densities(summary: dict[str, Any]) -> tuple[Array, Array] | None:
    """Return the densities of right and of wrong rows, float64 (400,) each, if a round knew them.

    Of a round that kept only its histograms they are fitted again.
    """
    found = summary.get("densities") or {}
    right, wrong = (np.asarray(found.get(n, []), np.float64) for n in ("right", "wrong"))
    if right.shape == wrong.shape == (BINS,):
        return right, wrong
    counts = summary.get("histograms") or {}
    own = np.asarray(counts.get("own", []), np.int64)
    strangers = np.asarray(counts.get("strangers", []), np.int64)
    if own.shape != (BINS,) or strangers.shape != (3, BINS):
        return None
    return split_scores(own, strangers)


def _read_scores(folder: SetFolder, number: int) -> tuple[pa.Table, tuple[str, ...]]:
    path = folder.scores(number)
    there = set(pq.read_schema(path).names)
    if missing := sorted(_NEEDED - there):
        raise InputError(
            f"{path} lacks the column {missing[0]!r}; undo round {number} and run it again"
        )
    names = [name for name in COLUMNS if name in there]
    found = pq.read_table(path, columns=names, partitioning=None)
    columns = {
        name: pc.cast(found[name], kind) if name in there else pa.nulls(found.num_rows, kind)
        for name, kind in COLUMNS.items()
    }
    for name in ("image_id", "other_identity"):
        columns[name] = pc.fill_null(columns[name], "")
    return pa.table(columns), tuple(name for name in COLUMNS if name not in there)


def _find_doubt(table: pa.Table, summary: dict[str, Any]) -> Array:
    """Return the chance that each row's fate is wrong, float64 (n,).

    A row that stays is right when it shows its own identity, a row that moved when it shows the
    other, a row that was dropped when it does not show its own. A join or a split can be wrong as
    well, as likely as not at its threshold. Two names of one person that were not joined are each
    as near to the other as to themselves, which is doubt already.
    """
    own = take_floats(table, "p_own")
    if np.isnan(own).all():
        own = _rate_by_score(take_floats(table, "own"), summary)
    fate = pc.fill_null(table["fate"], "")
    out = pc.is_null(table["fate"]).to_numpy()
    moved = pc.and_(pc.equal(fate, table["other_identity"]), pc.not_equal(fate, "")).to_numpy()
    moved &= pc.not_equal(table["identity"], fate).to_numpy()
    action = pc.fill_null(table["action"], "")
    joined = pc.is_in(action, value_set=pa.array(["merge", "split"])).to_numpy()
    moved &= ~joined  # those were scored against the identity that they are of now
    other = take_floats(table, "p_other")
    other = np.where(np.isnan(other), 1.0 - own, other)
    right = np.where(out, 1.0 - own, np.where(moved, other, own))
    unknown = np.isnan(right)  # the row was not scored: it may be wrong as any other
    right[unknown] = 1.0 - min(max(float(summary.get("noise") or 0.0), 0.0), 1.0)
    margin = np.abs(take_floats(table, "score") - take_floats(table, "threshold"))
    link = np.where(joined & ~np.isnan(margin), 0.5 * np.exp(-margin / _WIDTH), 0.0)
    doubt = np.clip(1.0 - right * (1.0 - link), 0.0, 1.0)
    check = pc.fill_null(table["check"], "")
    doubt[pc.is_in(check, value_set=pa.array(sorted(UNDOUBTED))).to_numpy()] = 0.0
    unlabelled = pc.equal(table["identity"], "").to_numpy() & (out | pc.equal(fate, "").to_numpy())
    doubt[unlabelled] = 0.0
    return np.asarray(doubt, np.float64)


def _rate_by_score(own: Array, summary: dict[str, Any]) -> Array:
    """Return the chance that each row is right by its score alone; NaN where nothing tells."""
    found = find_densities(summary)
    if found is None:
        return np.full(len(own), np.nan)
    right, wrong = found
    both = right + wrong
    share = np.divide(right, both, out=np.full(BINS, np.nan), where=both > 0)
    # Where nobody scored, the side of the threshold says it.
    middle = (np.arange(BINS) + 0.5) / (BINS / 2) - 1.0
    above = (middle >= float(summary.get("threshold") or 0.0)).astype(np.float64)
    share = np.where(np.isnan(share), above, share)
    rated = share[bin_scores(np.nan_to_num(own, nan=-1.0))]
    return np.where(np.isnan(own), np.nan, rated)


def _take(table: pa.Table, rows: Ints) -> pa.Table:
    """Return rows of a table; long columns of text as chunks that stay under 2 GiB."""
    step = 1 << 20
    parts = [table.take(pa.array(rows[at : at + step])) for at in range(0, len(rows), step)]
    return pa.concat_tables(parts) if parts else table.slice(0, 0)
