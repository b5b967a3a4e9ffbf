"""How good the decisions are, where the truth is known: precision, recall and F1 of every kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_tools.baselines import cleanlab_issues, largest_cluster, mean_cosine, sub_centre
from data_tools.centres import Labels, Mask, Vectors
from data_tools.decisions import Log, read_log
from data_tools.inject import FLIP, OUTLIER
from data_tools.log_state import find_fates
from data_tools.score_fates import find_left, score_fates
from data_tools.score_truth import EXPENDABLE, Truth, read_truth
from data_tools.sets import SetFolder, open_set
from facerec.checks import InputError
from facerec.data.embedding_cache import CACHE_NAME, EmbeddingCache
from facerec.data.manifest import read_manifest
from facerec.io import read_json

BASELINES: dict[str, Callable[[Vectors, Labels], Mask]] = {
    "mean cosine 0.6": mean_cosine,
    "largest DBSCAN cluster": largest_cluster,
    "sub-centre 75 degrees": sub_centre,
}
CLEANLAB = "cleanlab"


@dataclass(frozen=True)
class _Rows:
    """A manifest's rows that can be judged; arrays are (n,).

    Attributes:
        rows: int64, their numbers in the manifest.
        names: the identities by number, given and final ones.
        labels: int64, the given identity.
        fate: int64, the final one, -1 for none.
    """

    rows: Labels
    names: pa.Array
    labels: Labels
    fate: Labels


def score_set(
    out: Path,
    truth: Path,
    *,
    baselines: bool = False,
    max_bytes: int = 4 << 30,
    resamples: int = 200,
) -> dict[str, Any]:
    """Compare what was decided with who is really in the pictures.

    A row is wrong when the person in it is not who its folder says; of a split or merged person's
    own rows the kind "clean" says that they are right. Counted apart, and judged neither way: rows
    without a usable face or identity, pictures that the truth does not name, and, where not the
    largest face was taken, pictures of several people. Dropping a duplicate, a row of low quality
    or a leak is not held against the precision.

    Args:
        out: a set folder that was cleaned.
        truth: CSV or Parquet as `facerec.data.scenes.write_crawl` or
            `data_tools.inject_folder.inject` write it: key (the picture's path in the source),
            person ("" = nobody) and, if there, face (0 = the largest, whom the picture is about;
            -1 = none), kind (what is wrong with it) and copy_of (a duplicate's original).
        baselines: score the rules of `data_tools.baselines` on the same rows, by the embeddings
            that the last round used.
        max_bytes: memory that cleanlab may take; above it is left out.
        resamples: of the bootstrap over identities; 0: no intervals.

    Returns:
        wrong, dropped (rows that left their folder), hit (both), precision, recall, f1 (None where
        nothing can be said), lost_share (right rows that left), kinds (kind -> wrong, hit,
        recall), unusable, unknown; methods: "facerec-clean" and the baselines -> what
        `data_tools.score_fates.score_fates` returns; skipped: baseline -> why it gave nothing.

    Raises:
        InputError: no set, no round yet, a truth table without these columns, or, for baselines,
            no embeddings.
    """
    folder = open_set(out)
    log = read_log(folder.log)
    if not log.active:
        raise InputError(f"{out} is not cleaned yet; run: facerec-clean run {out} --model MODEL")
    manifest = read_manifest(folder.manifest)
    known = read_truth(truth, manifest)
    usable = _find_usable(manifest, log)
    judged = known.told[usable.rows]
    right = known.select(usable.rows[judged])
    person, kinds, copies = right.number_people(usable.names)
    fate, labels = usable.fate[judged], usable.labels[judged]
    quality = manifest["det_score"].take(pa.array(usable.rows[judged])).to_numpy()
    noise = _find_summary(log).get("noise")
    methods = {
        "facerec-clean": score_fates(
            fate,
            labels,
            person,
            kinds,
            copies=copies,
            quality=quality.astype(np.float64),
            noise=None if noise is None else float(noise),
            resamples=resamples,
        )
    }
    skipped: dict[str, str] = {}
    if baselines:
        kept, skipped = _run_baselines(folder, log, manifest, usable, max_bytes)
        for name, keep in kept.items():
            methods[name] = score_fates(
                np.where(keep[judged], labels, -1),
                labels,
                person,
                kinds,
                copies=copies,
                quality=quality.astype(np.float64),
                resamples=resamples,
            )
    return {
        **_count_drops(find_left(fate, labels, person, kinds, copies), right, kinds),
        "unusable": int(known.told.sum()) - int(judged.sum()),
        "unknown": manifest.num_rows - int(known.told.sum()),
        "methods": methods,
        "skipped": skipped,
    }


def _find_usable(manifest: pa.Table, log: Log) -> _Rows:
    fates = find_fates(manifest, log.tables(["path", "face", "to"]))
    usable = pc.and_(pc.not_equal(manifest["chip"], ""), pc.not_equal(manifest["identity"], ""))
    rows = np.flatnonzero(usable.to_numpy())
    given = manifest["identity"].take(pa.array(rows))
    labels = pc.index_in(given, value_set=fates.names).to_numpy().astype(np.int64)
    return _Rows(rows, fates.names, labels, fates.codes[rows].astype(np.int64))


def _count_drops(left: Mask, truth: Truth, kinds: NDArray[np.int8]) -> dict[str, Any]:
    """Return the figures over all kinds, and hits by the truth's own words for them."""
    bad = np.isin(kinds, (FLIP, OUTLIER))
    counted = bad | ~np.isin(kinds, EXPENDABLE)
    wrong, dropped = int(bad.sum()), int((left & counted).sum())
    hit, right = int((bad & left).sum()), int((~bad & counted).sum())
    words = pc.if_else(pc.equal(truth.kind, ""), "wrong identity", truth.kind)
    told: dict[str, dict[str, Any]] = {}
    for kind in sorted(pc.unique(words.filter(pa.array(bad))).to_pylist()):
        of_kind = bad & pc.equal(words, kind).to_numpy(zero_copy_only=False)
        count, found = int(of_kind.sum()), int((of_kind & left).sum())
        told[kind] = {"wrong": count, "hit": found, "recall": _ratio(found, count)}
    return {
        "wrong": wrong,
        "dropped": dropped,
        "hit": hit,
        "precision": _ratio(hit, dropped),
        "recall": _ratio(hit, wrong),
        "f1": _ratio(2 * hit, dropped + wrong),
        "lost_share": _ratio(dropped - hit, right),
        "kinds": told,
    }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _run_baselines(
    folder: SetFolder, log: Log, manifest: pa.Table, usable: _Rows, max_bytes: int
) -> tuple[dict[str, Mask], dict[str, str]]:
    """Return what each baseline keeps of the usable rows, bool (n,), and why one gave nothing."""
    cache = _open_embeddings(folder, log)
    chips = manifest["chip"].take(pa.array(usable.rows))
    stems = pc.replace_substring_regex(chips, r"^.*/|\.[^./]*$", "")
    vectors, norms = cache.load(stems.to_pylist())
    seen = np.flatnonzero(norms > 0)  # a chip without direction is dropped by everyone
    _, labels = np.unique(usable.labels[seen], return_inverse=True)
    found, reason = run_baselines(vectors[seen], labels.astype(np.int64), max_bytes)
    kept = {}
    for name, keep in found.items():
        kept[name] = np.zeros(len(usable.rows), bool)
        kept[name][seen] = keep
    return kept, {CLEANLAB: reason} if reason else {}


def run_baselines(
    vectors: Vectors, labels: Labels, max_bytes: int = 4 << 30
) -> tuple[dict[str, Mask], str]:
    """Return what each baseline keeps, by name, and why cleanlab gave nothing, "" if it did.

    Args:
        vectors: float32 (n, d), unit norm.
        labels: int64 (n,), every number from 0 used, -1 for none.
        max_bytes: memory that cleanlab may take.
    """
    kept = {name: rule(vectors, labels) for name, rule in BASELINES.items()}
    keep, reason = cleanlab_issues(vectors, labels, max_bytes)
    if keep is not None:
        kept[CLEANLAB] = keep
    return kept, reason


def _find_summary(log: Log) -> dict[str, Any]:
    """Return the summary of the last round that a model decided, not a person."""
    for entry in reversed(log.active):
        if "model_sha256" in entry.summary.get("settings", {}):
            return entry.summary
    return {}


def _open_embeddings(folder: SetFolder, log: Log) -> EmbeddingCache:
    """Return the cache of the last round's model, or the only one there is.

    Raises:
        InputError: there is none, or several and the log does not say which.
    """
    cards = [read_json(path) for path in sorted(folder.embeddings.glob(f"*/{CACHE_NAME}"))]
    used = _find_summary(log).get("settings", {}).get("model_sha256")
    chosen = [card for card in cards if card["model_sha256"] == used] or cards
    if len(chosen) != 1:
        raise InputError(
            f"baselines need the embeddings of the last round, but {folder.embeddings} holds "
            f"those of {len(chosen)} models; run: facerec-clean run {folder.root} --model MODEL"
        )
    return EmbeddingCache(folder.embeddings, chosen[0]["model_sha256"], int(chosen[0]["dim"]))
