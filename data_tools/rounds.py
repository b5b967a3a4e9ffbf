"""A cleaning round: embed what is new, judge every row, log what changes, write the clean set."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools import round_table as word
from data_tools.centres import Mask
from data_tools.decisions import Log, append_round, find_pinned, read_log
from data_tools.duplicate_cut import CopyCut, find_copy_cut
from data_tools.duplicates import Duplicates, find_duplicates
from data_tools.judgement import Judgement, Targets, judge
from data_tools.log_clean import read_state, refresh_clean, write_clean
from data_tools.log_receipts import check_finished
from data_tools.log_rows import REVIEW
from data_tools.looks import look_at_rows
from data_tools.quality import QualityTable, mark_crowded
from data_tools.round_overlap import (
    EvaluationSet,
    drop_overlap,
    hash_evaluation,
    open_evaluation,
    write_overlap,
)
from data_tools.round_quality import QualityLimits, describe_drops, drop_poor, rate_rows
from data_tools.round_rows import Usable, apply_pins, find_half, select_usable
from data_tools.round_summary import RoundViews, gather_columns, summarise
from data_tools.round_table import (
    CHECKS,
    REASONS,
    Verdicts,
    build_round,
    build_scores,
)
from data_tools.round_verdicts import (
    drop_copies,
    pin_rows,
    write_verdicts,
)
from data_tools.sets import SetFolder, clear_leftovers, open_set, record_stage
from data_tools.spaces import Embedded, connect_rows, embed_rows, read_chip
from data_tools.workers import Crew
from facerec.checks import InputError
from facerec.data.manifest import read_manifest
from facerec.embedder import Embedder
from facerec.io import atomic_path, sha256_bytes, sha256_file

__all__ = ["METHOD", "find_half", "read_chip", "run_round"]

METHOD = 2
"""Raised whenever a round would decide otherwise on the same scores."""


def run_round(
    out: Path,
    model: str | Path | tuple[str | Path, str | Path],
    *,
    runtime: str = "auto",
    targets: Targets | None = None,
    duplicates: bool = True,
    evaluation: Sequence[Path] = (),
    limits: QualityLimits | None = None,
    flip: bool = False,
    batch_size: int = 32,
    threads: int | None = None,
    crew: Crew | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge every row of a set with a model and log what changes.

    The whole manifest is judged each time from the labels as given, so a row dropped in an earlier
    round can be restored. The first round logs every row, later ones what they change. What people
    decided stands.

    Args:
        out: a set folder.
        model: the recogniser, as for `facerec.embedder.Embedder`; or two, of which the first did
            not train on half 0 and the second not on half 1 of the set (`find_half`): each judges
            the half that it does not know.
        runtime: likewise.
        targets: what may go wrong; the defaults when None.
        duplicates: take copies of a picture out.
        evaluation: set folders whose people and pictures must not be in the clean set; what is
            found is listed in `overlap.parquet`.
        limits: which faces are too poor to keep; none when None.
        flip: average each embedding with that of the mirror image.
        batch_size: chips a call.
        threads: cores to use, all when None.
        crew: who embeds: processes or a Ray cluster; this process when None.
        seed: of what is sampled.

    Returns:
        The round's summary, with `round` (the number, None if nothing was to do), `changed` (rows
        that end otherwise than before) and `changed_share`.

    Raises:
        InputError: no complete set, in use, a bad model, or a chip that is missing.
    """
    targets, limits = targets or Targets(), limits or QualityLimits()
    folder = open_set(out)
    models = model if isinstance(model, tuple) else (model,)
    tested = open_evaluation(evaluation)
    with folder.lock("run"):
        check_finished(folder)
        for place in (folder.root, folder.scores(1).parent):
            clear_leftovers(place)
        manifest = read_manifest(folder.manifest)
        embedders = [Embedder(one, runtime, batch_size, flip, threads) for one in models]
        log = read_log(folder.log)
        pinned = find_pinned(log)
        settings = {
            "check": CHECKS[word.IDENTITY],
            "method": METHOD,
            "model_sha256": embedders[0].model_hash,
            "other_model_sha256": embedders[-1].model_hash if len(models) > 1 else None,
            "targets": asdict(targets),
            "duplicates": duplicates,
            "evaluation": hash_evaluation(tested),
            "limits": asdict(limits),
            "seed": seed,
            "manifest_sha256": sha256_file(folder.manifest),
            "reviewed": _hash_pins(pinned),
        }
        if (last := find_automatic(log)) is not None and last["settings"] == settings:
            refresh_clean(folder)
            return {**last, "round": None, "changed": 0, "changed_share": 0.0}
        usable = select_usable(manifest)
        if not usable.ids:
            raise InputError(
                f"{out} has no usable face; see the reasons: facerec-clean report {out}"
            )
        began = time.monotonic()
        embedded = [embed_rows(folder, manifest, usable, one, crew) for one in embedders]
        embed_s = time.monotonic() - began
        usable, embedded = _leave_out_blank(usable, embedded)
        usable, pins = apply_pins(usable, manifest, pinned)
        views = _judge(folder, manifest, usable, embedded, targets, duplicates, threads, seed)
        verdicts = _decide(usable, views, targets)
        if tested:
            _leave_out_tested(folder, manifest, usable, views, verdicts, embedders[0], tested)
        quality = _rate(manifest, usable, views)
        drop_poor(verdicts, quality, limits)
        pin_rows(verdicts, pins)
        summary = _log(folder, manifest, usable, views, verdicts, quality, settings, log)
        spent = time.monotonic() - began - embed_s
        for stage, seconds in (("embed", embed_s), ("check", spent)):
            figures = {"count": len(usable.ids), "unit": "faces", "round": log.next_number}
            record_stage(folder, stage, seconds, **figures)
        return summary


def find_automatic(log: Log) -> dict[str, Any] | None:
    """Return the summary of the last round that counts and was not a person's review."""
    for entry in reversed(log.active):
        if entry.summary.get("check") != REVIEW:
            return entry.summary
    return None


def _hash_pins(pinned: pa.Table) -> str:
    return sha256_bytes(json.dumps(pinned.to_pydict(), sort_keys=True).encode())


def _leave_out_blank(usable: Usable, embedded: list[Embedded]) -> tuple[Usable, list[Embedded]]:
    """Return the rows that every model gives a direction: a zero vector compares to nothing."""
    kept = np.all([one.norms > 0 for one in embedded], axis=0)
    if kept.all():
        return usable, embedded
    fewer = [replace(one, vectors=one.vectors[kept], norms=one.norms[kept]) for one in embedded]
    return usable.select(kept), fewer


def _judge(
    folder: SetFolder,
    manifest: pa.Table,
    usable: Usable,
    embedded: list[Embedded],
    targets: Targets,
    duplicates: bool,
    threads: int | None,
    seed: int,
) -> RoundViews:
    judged: list[tuple[Mask, Judgement]] = []
    copies: Duplicates | None = None
    cuts: list[CopyCut] = []
    looks = look_at_rows(folder, manifest, usable) if duplicates else None
    for number, one in enumerate(embedded):
        graph = connect_rows(folder, usable, one, threads)
        near, labels = (graph.neighbours, graph.scores), usable.labels
        if looks is not None:
            found = find_duplicates(
                one.vectors, labels, *near, looks.hashes, quality=looks.sharpness
            )
            copies = copies or found
            # Copies have no vote: ten prints of one wrong face are one wrong face.
            labels = np.where((found.kept_row >= 0) & ~found.across, -1, labels)
        cuts.append(copies.cut if copies else find_copy_cut(one.vectors, labels, *near))
        verdict = judge(one.vectors, labels, graph.neighbours, targets, usable.photos, seed)
        rows = np.ones(len(labels), bool) if len(embedded) == 1 else usable.half == number
        judged.append((rows, verdict))
    return RoundViews(embedded, judged, copies, cuts[0], looks)


def _decide(usable: Usable, views: RoundViews, targets: Targets) -> Verdicts:
    given = targets.threshold is not None
    verdicts = write_verdicts(usable, views.judged, given_threshold=given)
    if views.duplicates is not None:
        drop_copies(verdicts, views.duplicates, views.gather("owners.own"))
    return verdicts


def _rate(manifest: pa.Table, usable: Usable, views: RoundViews) -> QualityTable:
    own, sure = views.gather("scores.own"), views.gather("scores.core")
    return rate_rows(manifest, usable, views.embedded[0].norms, own, sure, views.looks)


def _leave_out_tested(
    folder: SetFolder,
    manifest: pa.Table,
    usable: Usable,
    views: RoundViews,
    verdicts: Verdicts,
    embedder: Embedder,
    tested: Sequence[EvaluationSet],
) -> None:
    cut, one = views.cut, views.embedded[0]
    shas = manifest["sha256"].take(pa.array(usable.rows))
    hashes = None if views.looks is None else views.looks.hashes
    pairs = drop_overlap(verdicts, usable, one, embedder, tested, cut, hashes, shas)
    write_overlap(folder.root / "overlap.parquet", pairs)


def _log(
    folder: SetFolder,
    manifest: pa.Table,
    usable: Usable,
    views: RoundViews,
    verdicts: Verdicts,
    quality: QualityTable,
    settings: dict[str, Any],
    log: Log,
) -> dict[str, Any]:
    """Write scores, round and clean set; what is written first has no effect until it is logged."""
    _, before = read_state(folder, log.active)
    models, names = views.name_models(usable), before.take_names(before.codes)
    table, changed = build_round(manifest, usable, verdicts, names, models)
    number = log.next_number
    faces = manifest["faces"].take(pa.array(usable.rows)).to_numpy()
    columns = gather_columns(usable, views)
    columns |= {"quality": quality.score, "crowded": mark_crowded(faces)}
    _write_table(folder.scores(number), build_scores(manifest, usable, verdicts, columns))
    first = find_automatic(log) is None
    logged = table if first else table.filter(pa.array(changed))
    summary = summarise(usable, views, verdicts, settings)
    blank = int(np.count_nonzero(pc.equal(table["check"], CHECKS[word.EMBEDDING])))
    if blank:
        summary["reasons"][REASONS[word.NO_DIRECTION]] = blank
    summary["drops_by"] = describe_drops(manifest, usable, verdicts, quality)
    summary["rows"], summary["dropped"] = manifest.num_rows, summary["dropped"] + blank
    restored = int(np.count_nonzero(pc.equal(logged["action"], "restore").to_numpy()))
    settled = int(changed.sum())
    summary |= {"restored": restored, "changed": settled, "changed_share": settled / len(changed)}
    append_round(folder.log, logged, summary)
    write_clean(folder, read_log(folder.log))
    return {**summary, "round": number}


def _write_table(path: Path, table: pa.Table) -> None:
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
