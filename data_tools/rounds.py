"""A cleaning round: embed what is new, score every row, decide, log, write the clean set."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_tools.decisions import Decision, Log, append_round, read_log, replay, undo_last
from data_tools.outliers import MIN_PICTURES, ScoreTable, cap_drops, flag_rows, score_rows
from data_tools.sets import SetFolder, clear_leftovers, open_set, record_stage
from data_tools.thresholds import Threshold
from facerec.checks import InputError, check_range
from facerec.data.embedding_cache import EmbeddingCache
from facerec.data.manifest import read_manifest, write_manifest
from facerec.embedder import Embedder, embed_cached
from facerec.io import atomic_path, sha256_bytes, sha256_file

CHECK = "within-identity outlier"
EMBEDDING = "embedding"
METHOD = 1
"""Raised whenever the check would decide otherwise on the same scores."""

RIGHT = "near its identity's centre"
WRONG = "far from its identity's centre"
TOO_FEW = "too few to judge"
UNLABELLED = "no identity to judge against"
NO_DIRECTION = "no direction: embedding of norm 0"
CAPPED = "far from its identity's centre, kept by the cap on drops"


@dataclass(frozen=True)
class Usable:
    """The rows of a manifest that have a chip.

    Attributes:
        rows: int64 (n,), their numbers in the manifest.
        ids: id of each row's embedding.
        labels: int64 (n,), number of the identity, -1 without one.
        names: the identities, by number.
    """

    rows: NDArray[np.int64]
    ids: list[str]
    labels: NDArray[np.int64]
    names: list[str]


def run_round(
    out: Path,
    model: str | Path,
    *,
    runtime: str = "auto",
    threshold: float | None = None,
    max_drop: float = 0.8,
    flip: bool = False,
    batch_size: int = 32,
    threads: int | None = None,
) -> dict[str, Any]:
    """Judge every row of a set with a model and log what is decided.

    The whole manifest is judged each time, so a row dropped in an earlier round can be restored.
    The first round logs every row, later ones what they change.

    Args:
        out: a set folder.
        model: the recogniser, as for `facerec.embedder.Embedder`.
        runtime: likewise.
        threshold: a cosine; None: found from the set's own scores.
        max_drop: the greatest share of an identity that may be dropped, in [0, 1].
        flip: average each embedding with that of the mirror image.
        batch_size: chips a call.
        threads: cores to use, all when None.

    Returns:
        The round's summary, with `round` (the number, None if nothing changed) and `changed`.

    Raises:
        InputError: no complete set, in use, a bad model, or a chip that is missing.
    """
    check_range(max_drop, "max_drop", 0.0, 1.0)
    if threshold is not None:
        check_range(threshold, "threshold", -1.0, 1.0)
    folder = open_set(out)
    with folder.lock("run"):
        for place in (folder.root, folder.scores(1).parent):
            clear_leftovers(place)
        manifest = read_manifest(folder.manifest)
        embedder = Embedder(model, runtime, batch_size, flip, threads)
        settings = {
            "check": CHECK,
            "method": METHOD,
            "model_sha256": embedder.model_hash,
            "threshold": "auto" if threshold is None else threshold,
            "max_drop": max_drop,
            "manifest_sha256": sha256_file(folder.manifest),
        }
        log = read_log(folder.log)
        if log.active and log.active[-1].summary["settings"] == settings:
            write_manifest(replay(manifest, log.decisions()), folder.clean)
            return {**log.active[-1].summary, "round": None, "changed": 0}
        usable = _select_usable(manifest)
        if not usable.ids:
            raise InputError(
                f"{out} has no usable face; see the reasons: facerec-clean report {out}"
            )
        return _run(folder, manifest, usable, embedder, log, settings)


def _run(
    folder: SetFolder,
    manifest: pa.Table,
    usable: Usable,
    embedder: Embedder,
    log: Log,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Embed, score, decide, log; what is written first is of no effect until the log has it."""
    began = time.monotonic()
    vectors, norms = _embed(folder, manifest, usable, embedder)
    blank = frozenset(usable.rows[norms == 0].tolist())  # a zero vector can be compared to nothing
    usable, vectors = _select_usable(manifest, blank), vectors[norms > 0]
    if not usable.ids:
        raise InputError(f"{embedder.info.name} gives every chip a zero vector; take another model")
    embedded = time.monotonic()
    threshold = None if settings["threshold"] == "auto" else settings["threshold"]
    scores, cut = score_rows(vectors, usable.labels, threshold)
    max_drop, model_hash = settings["max_drop"], embedder.model_hash
    decisions = _decide(manifest, usable, blank, scores, cut, max_drop, model_hash)
    number = log.next_number
    _write_scores(folder.scores(number), manifest, usable, scores)
    changed = _find_changes(decisions, log.decisions(), number, first=not log.active)
    checked = time.monotonic()
    summary = _summarise(decisions, changed, scores, cut, settings, embedder)
    append_round(folder.log, changed, summary)
    write_manifest(replay(manifest, [*log.decisions(), *changed]), folder.clean)
    count = len(usable.ids)
    record_stage(folder, "embed", embedded - began, count=count, unit="faces", round=number)
    record_stage(folder, "check", checked - embedded, count=count, unit="faces", round=number)
    return {**summary, "round": number, "changed": summary["actions_changed"]}


def undo_round(out: Path) -> tuple[int, int]:
    """Take the last round back; return its number and how many rows the clean set has now."""
    folder = open_set(out)
    with folder.lock("undo"):
        number = undo_last(folder.log)
        clean = replay(read_manifest(folder.manifest), read_log(folder.log).decisions())
        write_manifest(clean, folder.clean)
    return number, clean.num_rows


def read_chip(path: Path) -> NDArray[np.uint8]:
    """Return a chip of a set, uint8 RGB (112, 112, 3).

    Raises:
        InputError: it is missing or damaged.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None or image.shape != (112, 112, 3):
        raise InputError(f"chip {path} is missing or damaged; ingest the source into a new folder")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _select_usable(manifest: pa.Table, without: frozenset[int] = frozenset()) -> Usable:
    chips = manifest["chip"].to_pylist()
    rows = np.array([r for r, chip in enumerate(chips) if chip and r not in without], np.int64)
    given = manifest["identity"].to_pylist()
    names = sorted({given[row] for row in rows} - {""})
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers.get(given[row], -1) for row in rows], np.int64)
    return Usable(rows, [PurePosixPath(chips[row]).stem for row in rows], labels, names)


def _embed(
    folder: SetFolder, manifest: pa.Table, usable: Usable, embedder: Embedder
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    cache = EmbeddingCache(folder.embeddings, embedder.model_hash, embedder.dim)
    chips = manifest["chip"].to_pylist()

    def load(positions: list[int]) -> NDArray[np.uint8]:
        return np.stack([read_chip(folder.root / chips[usable.rows[i]]) for i in positions])

    return embed_cached(embedder, cache, usable.ids, load)


def _decide(
    manifest: pa.Table,
    usable: Usable,
    blank: frozenset[int],
    scores: ScoreTable,
    cut: Threshold,
    max_drop: float,
    model_hash: str,
) -> list[Decision]:
    """Return one decision for every row of the manifest, in its order."""
    flagged = flag_rows(scores, cut.value)
    near = _find_likely_owners(scores, usable, cut.value)
    dropped = cap_drops(flagged, scores, usable.labels, max_drop)
    columns = ("image_id", "path", "face", "identity", "reason")
    places = {int(row): place for place, row in enumerate(usable.rows)}
    decisions = []
    rows = zip(*(manifest[name].to_pylist() for name in columns), strict=True)
    for row, (image_id, path, face, identity, reason) in enumerate(rows):
        # The round's number is set when it is logged.
        unusable = Decision(
            image_id, path, face, 0, "ingest", "drop", identity, None, None, None, "", reason
        )
        place = places.get(row)
        if row in blank:
            decisions.append(
                replace(unusable, check=EMBEDDING, model=model_hash, reason=NO_DIRECTION)
            )
            continue
        if place is None:
            decisions.append(unusable)
            continue
        own, drop = float(scores.own[place]), bool(dropped[place])
        decisions.append(
            replace(
                unusable,
                check=CHECK,
                action="drop" if drop else "keep",
                to_identity=None if drop else identity,
                score=own if np.isfinite(own) else None,
                threshold=cut.value if scores.size[place] >= MIN_PICTURES else None,
                model=model_hash,
                reason=_explain(scores, usable, place, drop, bool(flagged[place]), near[place]),
            )
        )
    return decisions


def _find_likely_owners(scores: ScoreTable, usable: Usable, threshold: float) -> list[str]:
    """Return whose face each row may be instead, "" where no other centre is that near.

    The nearest of many strangers is never far: a row must lie nearer than one right row in a
    thousand lies to its nearest stranger.
    """
    known = scores.other[scores.core & np.isfinite(scores.other)]
    least = max(threshold, float(np.quantile(known, 0.999))) if len(known) else np.inf
    near = (scores.other >= least) & ~(scores.own >= scores.other)
    return [usable.names[i] if n else "" for i, n in zip(scores.other_identity, near, strict=True)]


def _explain(
    scores: ScoreTable, usable: Usable, place: int, drop: bool, flagged: bool, near: str
) -> str:
    if usable.labels[place] < 0:
        return UNLABELLED
    if scores.size[place] < MIN_PICTURES:
        return TOO_FEW
    if flagged and not drop:
        return CAPPED
    if not drop:
        return RIGHT
    return f"{WRONG}, near that of {near}" if near else WRONG


def _find_changes(
    decisions: Sequence[Decision], earlier: Sequence[Decision], number: int, *, first: bool
) -> list[Decision]:
    """Return the decisions to log: all in the first round, then those that change a row."""
    state = {decision.key: decision.to_identity for decision in earlier}
    logged = []
    for decision in decisions:
        if first:
            logged.append(replace(decision, round=number))
            continue
        before = state.get(decision.key, decision.from_identity)
        if before == decision.to_identity:
            continue
        action = "restore" if before is None else decision.action
        logged.append(replace(decision, round=number, from_identity=before, action=action))
    return logged


def _write_scores(path: Path, manifest: pa.Table, usable: Usable, scores: ScoreTable) -> None:
    taken = manifest.select(["image_id", "path", "face", "identity", "chip"])
    table = taken.take(pa.array(usable.rows))
    nearest = [usable.names[i] if i >= 0 else "" for i in scores.other_identity]
    for name, values in (
        ("own", pa.array(scores.own, pa.float64(), from_pandas=True)),
        ("other", pa.array(scores.other, pa.float64(), from_pandas=True)),
        ("other_identity", pa.array(nearest, pa.string())),
        ("size", pa.array(scores.size)),
        ("core", pa.array(scores.core)),
    ):
        table = table.append_column(name, values)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _summarise(
    decisions: Sequence[Decision],
    changed: Sequence[Decision],
    scores: ScoreTable,
    cut: Threshold,
    settings: dict[str, Any],
    embedder: Embedder,
) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    for decision in decisions:
        if decision.check in (CHECK, EMBEDDING):
            reason = decision.reason.split(", near that of ")[0]
            reasons[reason] = reasons.get(reason, 0) + 1
    judged = int(np.count_nonzero(scores.size >= MIN_PICTURES))
    dropped = sum(reasons.get(name, 0) for name in (WRONG,))
    actions = [d.action for d in changed if d.action != "keep"]
    return {
        "settings": settings,
        "settings_sha256": sha256_bytes(json.dumps(settings, sort_keys=True).encode()),
        "model": embedder.info.name,
        "runtime": embedder.runtime_name,
        "rows": len(decisions),
        "usable": len(scores.own),
        "judged": judged,
        "kept": len(scores.own) - dropped,
        "dropped": dropped,
        "flagged": dropped + reasons.get(CAPPED, 0),
        "restored": actions.count("restore"),
        "actions_changed": len(actions),
        "reasons": dict(sorted(reasons.items())),
        "threshold": cut.value,
        "threshold_found": cut.found,
        "noise": cut.noise,
        "expected_wrong_drops": cut.wrong_drops,
        "expected_missed": cut.missed,
        "histograms": {"own": cut.own.tolist(), "strangers": cut.strangers.tolist()},
    }
