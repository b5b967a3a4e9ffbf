"""How wrong is what is left? A random sample to look at, and the estimate from the verdicts on it.

Rows are drawn more often where a decision is in doubt, and weighted back: each stratum of doubt
counts by its rows in the set (Horvitz and Thompson 1952). The interval joins the strata's own
Jeffreys intervals by the squares of their arms (MOVER: Zou and Donner 2008), so that a large
stratum in which no wrong row was seen still widens it; a normal interval would not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import beta

from data_tools.centres import Array
from data_tools.log_state import find_last, locate_rows
from data_tools.review_rows import UNDOUBTED
from data_tools.verdicts import VERDICTS
from facerec.checks import InputError, check_whole, nearest
from facerec.data.sources import read_table

KEPT, DROPPED = "kept", "dropped"
LEAST_SAMPLE = 40
"""Fewer rows could leave a stratum without any."""
SAMPLE_SCHEMA: pa.Schema = pa.schema(
    [
        ("path", pa.string()),
        ("image_id", pa.string()),
        ("face", pa.int32()),
        ("side", pa.string()),  # "kept" or "dropped"
        ("given", pa.string()),  # identity as ingested
        ("fate", pa.string()),  # identity in the clean set, "" = none
        ("doubt", pa.float64()),  # chance that the decision is wrong, in [0, 1]
        ("stratum", pa.int32()),
        ("stratum_rows", pa.int64()),  # rows of the set in this side and stratum
        ("inclusion", pa.float64()),  # probability of each of them to be drawn
    ]
)
"""Columns of a sample: which rows, and with which probability they were drawn."""

_EDGES = (0.001, 0.01, 0.05, 0.2)
_LEAST_ROWS = 20
_LEAST_DOUBT = 0.02
_DROPPED_SHARE = 0.25
_TAIL = 0.025

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Estimate:
    """A share of rows, estimated from a sample.

    Attributes:
        value: in [0, 1].
        low: lower end of the 95 % interval.
        high: upper end.
        answered: rows of the sample with a verdict.
        asked: rows of the sample.
        blind: strata without any verdict: the interval makes no assumption on them, `value` takes
            their mean doubt.
    """

    value: float
    low: float
    high: float
    answered: int
    asked: int
    blind: int


def plan_sample(table: pa.Table, n: int, seed: int = 0) -> pa.Table:
    """Return a random sample of the rows of a set, with the probability of each to be in it.

    A quarter is drawn among the rows dropped for not showing their identity, the rest among those
    in the clean set under a name. Within both, strata by doubt get rows in proportion to their
    size and spread (Neyman 1934), the model's doubt never believed to be under 2 %, and at least
    20 each where n allows.

    Args:
        table: rows with path, face, image_id, identity, fate (null = out), action and doubt: see
            `data_tools.review_rows.Rows`.
        n: rows to draw, at least 40; all when there are fewer.
        seed: of the draw. The order of the sample is random as well and says nothing.

    Returns:
        At most n rows of `SAMPLE_SCHEMA`.

    Raises:
        InputError: n is too small.
    """
    check_whole(n, "the sample", LEAST_SAMPLE, 1 << 31)
    doubt = np.asarray(table["doubt"].to_numpy(), np.float64)
    kept = pc.not_equal(pc.fill_null(table["fate"], ""), "").to_numpy()
    dropped = pc.equal(pc.fill_null(table["action"], ""), "drop").to_numpy()
    dropped &= pc.is_null(table["fate"]).to_numpy()
    if "check" in table.column_names:
        check = pc.fill_null(table["check"], "")
        dropped &= ~pc.is_in(check, value_set=pa.array(sorted(UNDOUBTED))).to_numpy()
    dropped &= pc.not_equal(table["identity"], "").to_numpy()
    spare = min(int(dropped.sum()), max(int(n * _DROPPED_SHARE), n - int(kept.sum())))
    rng = np.random.default_rng(seed)
    parts = [
        _draw(table, np.flatnonzero(rows), doubt, count, side, rng)
        for side, rows, count in ((KEPT, kept, n - spare), (DROPPED, dropped, spare))
    ]
    sample = pa.concat_tables(parts)
    return sample.take(pa.array(rng.permutation(sample.num_rows)))


def estimate_residual(sample: pa.Table, verdicts: pa.Table) -> Estimate:
    """Return the share of rows of the clean set that do not show their identity.

    Args:
        sample: of `plan_sample`.
        verdicts: of `read_verdicts`.

    Raises:
        InputError: no verdict on a row of the clean set.
    """
    return _estimate(sample, verdicts, KEPT)


def estimate_lost(sample: pa.Table, verdicts: pa.Table) -> Estimate | None:
    """Return the share of the dropped rows that did show their identity; None without a verdict."""
    side = sample.filter(pc.equal(sample["side"], DROPPED))
    if not (locate_rows(side, verdicts) >= 0).any():
        return None
    return _estimate(sample, verdicts, DROPPED)


def read_verdicts(path: Path) -> pa.Table:
    """Return the lines of a reviewer's table that have a verdict.

    Args:
        path: CSV or Parquet as for `data_tools.verdicts.import_verdicts`, with a path.

    Returns:
        Columns path, face (int32), verdict and identity; the last line on a row counts.

    Raises:
        InputError: not such a table, or a verdict of another kind.
    """
    table = read_table(path)
    if missing := [name for name in ("path", "verdict") if name not in table.column_names]:
        raise InputError(
            f"{path} must have the columns path and verdict; {missing[0]!r} is missing"
        )
    texts = {}
    for name in ("path", "face", "verdict", "identity"):
        given = table[name] if name in table.column_names else pa.nulls(table.num_rows)
        text = pc.fill_null(pc.cast(given, pa.string()), "")
        texts[name] = text if name == "path" else pc.utf8_trim_whitespace(text)
    texts["verdict"] = pc.utf8_lower(texts["verdict"])
    texts["face"] = pc.if_else(pc.equal(texts["face"], ""), "0", texts["face"])
    if not pc.all(pc.match_substring_regex(texts["face"], "^[0-9]{1,9}$"), min_count=0).as_py():
        raise InputError(f"{path}: face must be a whole number from 0 on every line")
    texts["face"] = pc.cast(texts["face"], pa.int32())
    found = pa.table(texts)
    found = found.filter(pc.not_equal(found["verdict"], ""))
    for name in pc.unique(found["verdict"]).to_pylist():
        if name not in VERDICTS:
            raise InputError(
                f"{path}: verdict must be one of {', '.join(VERDICTS)}, got {name!r}"
                f"{nearest(name, VERDICTS)}"
            )
    return found.take(pa.array(find_last(found)))


def count_answers(sample: pa.Table, verdicts: pa.Table) -> int:
    """Return how many rows of a sample have a verdict."""
    return int(np.count_nonzero(locate_rows(sample, verdicts) >= 0))


def join_strata(wrong: Ints, seen: Ints, rows: Ints, expected: Array) -> tuple[float, float, float]:
    """Return a share over strata, with its 95 % interval: (value, low, high).

    Args:
        wrong: int64 (h,), counted among the rows seen of each stratum.
        seen: int64 (h,), rows seen.
        rows: int64 (h,), rows there are, at least 1.
        expected: float64 (h,), taken for the share where nothing was seen.
    """
    weights = rows / rows.sum()
    blind, whole = seen == 0, seen >= rows
    share = np.where(blind, expected, wrong / np.maximum(seen, 1))
    # A row seen is certain: of a stratum seen by half only the other half can vary.
    worth = np.where(whole, 1.0, seen / np.maximum(1.0 - seen / rows, 1e-12))
    hits = share * worth
    low = beta.ppf(_TAIL, hits + 0.5, worth - hits + 0.5)
    high = beta.ppf(1 - _TAIL, hits + 0.5, worth - hits + 0.5)
    low = np.where(blind | (wrong == 0), 0.0, low)
    high = np.where(blind | (wrong == seen), 1.0, high)
    low, high = np.where(whole, share, low), np.where(whole, share, high)
    value = float(weights @ share)
    down = float(np.sqrt(np.sum((weights * (share - low)) ** 2)))
    up = float(np.sqrt(np.sum((weights * (high - share)) ** 2)))
    return value, max(0.0, value - down), min(1.0, value + up)


def _draw(
    table: pa.Table, rows: Ints, doubt: Array, n: int, side: str, rng: np.random.Generator
) -> pa.Table:
    """Return up to n of some rows, drawn by strata of their doubt."""
    strata = np.searchsorted(_EDGES, doubt[rows], side="right")
    sizes = np.bincount(strata, minlength=len(_EDGES) + 1)
    sums = np.bincount(strata, weights=doubt[rows], minlength=len(sizes))
    counts = _allot(n, sizes, sums / np.maximum(sizes, 1))
    chosen = [
        np.sort(rng.choice(rows[strata == s], count, replace=False))
        for s, count in enumerate(counts.tolist())
        if count
    ]
    taken = np.concatenate([np.empty(0, np.int64), *chosen]).astype(np.int64)
    place = np.searchsorted(_EDGES, doubt[taken], side="right")
    picked = table.select(["path", "image_id", "face", "identity", "fate"]).take(pa.array(taken))
    columns = {
        "path": picked["path"],
        "image_id": picked["image_id"],
        "face": picked["face"],
        "side": pa.array([side] * len(taken), pa.string()),
        "given": picked["identity"],
        "fate": pc.fill_null(picked["fate"], ""),
        "doubt": pa.array(doubt[taken]),
        "stratum": pa.array(place),
        "stratum_rows": pa.array(sizes[place]),
        "inclusion": pa.array(counts[place] / np.maximum(sizes[place], 1)),
    }
    return pa.table(columns).cast(SAMPLE_SCHEMA)


def _allot(n: int, sizes: Ints, doubts: Array) -> Ints:
    """Return how many rows each stratum gives, int64 (h,), summing to min(n, all)."""
    n = min(n, int(sizes.sum()))
    filled = max(int(np.count_nonzero(sizes)), 1)
    counts = np.minimum(sizes, min(_LEAST_ROWS, n // filled))
    spread = np.clip(doubts, _LEAST_DOUBT, 1 - _LEAST_DOUBT)
    wanted = sizes * np.sqrt(spread * (1 - spread))
    while (left := n - int(counts.sum())) > 0:
        # One at a time is slow, all at once unfair: give what is left by how far each is behind.
        open_ = counts < sizes
        behind = np.where(open_, np.maximum(wanted / wanted[open_].sum() * n - counts, 0.0), 0.0)
        if behind.sum() <= 0:
            behind = np.where(open_, sizes - counts, 0).astype(np.float64)
        more = np.minimum(np.floor(behind / behind.sum() * left).astype(np.int64), sizes - counts)
        if not more.any():
            more[int(np.argmax(behind))] = 1
        counts = counts + more
    return np.asarray(counts, np.int64)


def _estimate(sample: pa.Table, verdicts: pa.Table, side: str) -> Estimate:
    sample = sample.filter(pc.equal(sample["side"], side))
    place = locate_rows(sample, verdicts)
    answered = place >= 0
    if not answered.any():
        raise InputError(
            f"no verdict answers the sample's {sample.num_rows:,} {side} rows; look at "
            "review/sample-0001.html and give the table that its button saves"
        )
    asked = sample.num_rows
    said = verdicts.select(["verdict", "identity"]).take(pa.array(place, mask=~answered))
    name = sample["fate"] if side == KEPT else sample["given"]
    shows = pc.or_(
        pc.equal(said["verdict"], "keep"),
        pc.and_(pc.equal(said["verdict"], "relabel"), pc.equal(said["identity"], name)),
    )
    counted = np.asarray(pc.fill_null(shows, False).to_numpy(), bool)
    hit = answered & (counted if side == DROPPED else ~counted)
    strata, first, code = np.unique(
        sample["stratum"].to_numpy(), return_index=True, return_inverse=True
    )
    seen = np.bincount(code[answered], minlength=len(strata))
    wrong = np.bincount(code[hit], minlength=len(strata))
    expected = np.bincount(code, weights=sample["doubt"].to_numpy()) / np.bincount(code)
    rows = sample["stratum_rows"].to_numpy()[first]
    value, low, high = join_strata(wrong, seen, rows, expected)
    return Estimate(value, low, high, int(answered.sum()), asked, int(np.count_nonzero(seen == 0)))
