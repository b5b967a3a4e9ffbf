"""The rejects of a set: read with what the rounds found out, routed, written, handed on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_tools.centres import Array, Labels, Mask
from data_tools.decisions import REVIEW, Log, Round
from data_tools.export_places import check_outside
from data_tools.log_clean import refresh_clean
from data_tools.log_plan import embedding_ids, open_caches
from data_tools.log_receipts import check_finished
from data_tools.log_state import Fates, find_fates, locate_rows
from data_tools.owners import Owners
from data_tools.rejects import GREY, LEAK, LEAST_PICTURES, Evidence, Routes, route_rejects
from data_tools.rejects_files import (
    Rejects,
    check_free,
    describe_routes,
    link_chips,
    log_identities,
    write_rejects,
)
from data_tools.sets import SetFolder, clear_leftovers, open_set, record_stage
from facerec.checks import InputError
from facerec.data.embedding_cache import EmbeddingCache
from facerec.io import sha256_file

_COLUMNS = ["image_id", "path", "face", "identity", "chip", "reason"]
_SCORES = ("own", "other", "p_own", "p_other", "p_nobody", "quality")
_POOR_SHARE = 0.005
_GRAPH = "rejects"


def route_set(
    out: Path,
    destination: Path | None = None,
    *,
    new_identities: bool = False,
    leak: float = LEAK,
    grey: float = GREY,
    least_pictures: int = LEAST_PICTURES,
    seed: int = 0,
) -> dict[str, Any]:
    """Say of every row that is not in the clean set, or has no name in it, what to do with it.

    Writes `rejects.parquet` into the set folder: one row a reject with route, reason, score, the
    identity it is nearest to and its group. The embeddings and probabilities of the last round are
    used; nothing is embedded. Rows poorer than 199 of 200 kept ones are of low quality.

    Args:
        out: a set folder that was cleaned.
        destination: a new folder outside the set for hard links to the chips that pass for
            strangers, as `unlabelled.folder` of facerec-train takes it; it is not made where none
            passes.
        new_identities: log the new identities as a round, in the clean set under the names
            "new-00001" and so on; `undo` takes it back.
        leak: see `data_tools.rejects.route_rejects`, likewise the others.
        grey: likewise.
        least_pictures: likewise.
        seed: likewise.

    Returns:
        rejects (rows), routes and reasons (rows by name), new_identities (how many), groups
        (groups held back), disjointness, linked (chips), round (of the new identities, None when
        none was logged), rows (of the clean set), sha256.

    Raises:
        InputError: no set, in use, never cleaned, its embeddings are gone, a value out of range, or
            something lies at the destination.
    """
    folder = open_set(out)
    if destination is not None:
        check_outside(folder, destination)
        check_free(destination)
    began = time.monotonic()
    with folder.lock("rejects"):
        check_finished(folder)
        clear_leftovers(folder.root)
        log = refresh_clean(folder)
        state = _read(folder, log)
        routes = route_rejects(
            state.vectors,
            state.fate,
            state.cut,
            state.evidence,
            leak=leak,
            grey=grey,
            least_pictures=least_pictures,
            seed=seed,
            folder=folder.root / "graphs" / f"{_GRAPH}-{state.model[:16]}",
        )
        rejects = Rejects(state.manifest, state.rows, state.names, state.codes, state.scores)
        table = write_rejects(folder, rejects, routes)
        linked = link_chips(folder, table, destination) if destination is not None else 0
        number = None
        if new_identities and routes.new:
            number = log_identities(folder, log, table, state.model)
        figures = _describe(folder, table, routes, linked, number)
        place = {"destination": str(destination.resolve())} if linked and destination else {}
        spent = time.monotonic() - began
        record_stage(folder, "rejects", spent, count=table.num_rows, unit="rows", **place)
    return figures


@dataclass(frozen=True)
class _State:
    """What a set knows of the rows that have a chip.

    Attributes:
        manifest: all rows.
        rows: int64 (n,), numbers in the manifest of the rows with a chip.
        names: identities by number.
        codes: int32 (rows of the manifest,), who each row is now, -1 for out.
        vectors: float32 (n, d).
        fate: int64 (n,), -1 for out or without a name.
        cut: the round's threshold.
        evidence: what else is known.
        scores: columns of the round's table, float64 (n,), NaN where a row was not scored.
        model: hash.
    """

    manifest: pa.Table
    rows: Labels
    names: pa.Array
    codes: NDArray[np.int32]
    vectors: NDArray[np.float32]
    fate: Labels
    cut: float | None
    evidence: Evidence
    scores: dict[str, Array]
    model: str


def _read(folder: SetFolder, log: Log) -> _State:
    manifest = pq.read_table(folder.manifest, columns=_COLUMNS, partitioning=None)
    scored = _find_scored(folder, log)
    tables = [entry.read(["path", "face", "to", "action", "check"]) for entry in log.active]
    fates = find_fates(manifest, tables)
    rows = np.flatnonzero(pc.not_equal(manifest["chip"], "").to_numpy())
    last = pa.concat_tables([table.select(["action", "check"]) for table in tables])
    place = fates.decided[rows]
    decided = last.take(pa.array(place, mask=place < 0))
    chips = manifest.take(pa.array(rows))
    model, vectors, norms = _load_embeddings(folder, scored, chips["chip"])
    codes = fates.codes[rows].astype(np.int64)
    nobody = pc.fill_null(pc.index_in("", value_set=fates.names), -2).as_py()
    fate = np.where(codes == nobody, -1, codes)
    scores = _read_scores(folder.scores(scored.number), chips)
    evidence = _gather(chips, decided, fates, fate, scores, norms)
    cut = scored.summary.get("threshold")
    return _State(
        manifest,
        rows,
        fates.names,
        fates.codes,
        vectors,
        fate,
        float(cut) if isinstance(cut, (int, float)) else None,
        evidence,
        scores,
        model,
    )


def _find_scored(folder: SetFolder, log: Log) -> Round:
    """Return the last round that counts and left a score table."""
    for entry in reversed(log.active):
        if folder.scores(entry.number).is_file():
            return entry
    raise InputError(
        f"{folder.root} has no scores of a round that counts; run: facerec-clean run "
        f"{folder.root} --model MODEL"
    )


def _load_embeddings(
    folder: SetFolder, scored: Round, chips: pa.ChunkedArray
) -> tuple[str, NDArray[np.float32], NDArray[np.float32]]:
    """Return the hash of the round's model, and the embeddings and norms of all chips."""
    model = str(scored.summary.get("settings", {}).get("model_sha256", ""))
    caches = [cache for cache in open_caches(folder) if cache.model_hash == model]
    ids = embedding_ids(chips.to_pylist())
    missing = len(ids) - int(caches[0].has(ids).sum()) if caches else len(ids)
    if missing:
        raise InputError(
            f"{folder.root} lacks the embeddings of {missing} faces by the model of round "
            f"{scored.number}; run that model again: facerec-clean run {folder.root} --model MODEL"
        )
    cache: EmbeddingCache = caches[0]
    return model, *cache.load(ids)


def _read_scores(path: Path, rows: pa.Table) -> dict[str, Array]:
    """Return the columns that a score table has, in the order of some rows of the manifest."""
    found = [name for name in pq.read_schema(path).names if name in _SCORES]
    table = pq.read_table(path, columns=["path", "face", *found], partitioning=None)
    place = locate_rows(rows, table)
    taken = table.select(found).take(pa.array(place, mask=place < 0))
    return {
        name: np.asarray(
            pc.fill_null(pc.cast(taken[name], pa.float64()), np.nan).to_numpy(), np.float64
        )
        for name in found
    }


def _gather(
    chips: pa.Table,
    decided: pa.Table,
    fates: Fates,
    fate: Labels,
    scores: dict[str, Array],
    norms: NDArray[np.float32],
) -> Evidence:
    review = _is(decided["check"], REVIEW)
    owners = None
    if all(name in scores for name in ("p_own", "p_other", "p_nobody")):
        # Of what people decided the round's probabilities say nothing.
        own, other, nobody = (
            np.where(review, np.nan, scores[name]) for name in ("p_own", "p_other", "p_nobody")
        )
        owners = Owners(own, other, nobody, (np.nan, np.nan, np.nan))
    nearest = None
    if "own" in scores and "other" in scores:
        nearest = np.fmax(scores["own"], scores["other"])
    return Evidence(
        label=_find_given(chips["identity"], fates.names, fate),
        owners=owners,
        nearest=nearest,
        duplicate=_is(decided["action"], "duplicate"),
        overlap=_is(decided["action"], "overlap"),
        low_quality=_find_poor(scores.get("quality", norms.astype(np.float64)), fate)
        | _is(decided["check"], "quality"),
        taken_out=review,
        picture=_number(chips["chip"]),
        photo=_number(chips["path"]),
    )


def _find_given(identities: pa.ChunkedArray, names: pa.Array, fate: Labels) -> Labels:
    """Return the identity that each row was given, -1 for none or one of which nobody is left.

    A given identity is now the one that most of its rows are: it may have been joined to another.
    """
    given = pc.fill_null(pc.index_in(identities, value_set=names), -1).to_numpy().astype(np.int64)
    given[pc.equal(identities, "").to_numpy(zero_copy_only=False)] = -1
    count = max(1, len(names))
    both = (given >= 0) & (fate >= 0)
    pairs, sizes = np.unique(given[both] * count + fate[both], return_counts=True)
    order = np.argsort(sizes, kind="stable")
    now = np.full(count + 1, -1, np.int64)
    now[pairs[order] // count] = pairs[order] % count  # the last written is the most frequent
    return np.asarray(now[given], np.int64)


def _find_poor(quality: Array, fate: Labels) -> Mask:
    kept = quality[(fate >= 0) & np.isfinite(quality)]
    if not len(kept):
        return np.zeros(len(fate), bool)
    return np.asarray((fate < 0) & (quality < np.quantile(kept, _POOR_SHARE)), bool)


def _is(column: pa.ChunkedArray, value: str) -> Mask:
    return np.asarray(
        pc.fill_null(pc.equal(column, value), False).to_numpy(zero_copy_only=False), bool
    )


def _number(column: pa.ChunkedArray) -> Labels:
    """Return a number for each text, the same for the same."""
    codes = pc.cast(column, pa.large_string()).combine_chunks().dictionary_encode().indices
    return np.asarray(codes.to_numpy(), np.int64)


def _describe(
    folder: SetFolder, table: pa.Table, routes: Routes, linked: int, number: int | None
) -> dict[str, Any]:
    return {
        "rejects": table.num_rows,
        **describe_routes(table, routes),
        "linked": linked,
        "round": number,
        "rows": pq.read_metadata(folder.clean).num_rows,
        "sha256": {"rejects": sha256_file(folder.root / "rejects.parquet")},
    }
