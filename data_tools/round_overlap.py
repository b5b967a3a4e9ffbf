"""Evaluation sets and a round: nobody who is tested on may be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_tools import round_table as word
from data_tools.centres import Mask
from data_tools.duplicate_cut import CopyCut
from data_tools.hashes import Hashes
from data_tools.looks import look_at_rows
from data_tools.overlap import FaceSet, Overlap, decide_overlap, find_overlap
from data_tools.round_rows import Usable, select_usable
from data_tools.round_table import Verdicts
from data_tools.sets import SetFolder, open_set
from data_tools.spaces import Embedded, embed_rows
from facerec.checks import InputError
from facerec.data.manifest import read_manifest
from facerec.embedder import Embedder
from facerec.io import atomic_path, sha256_file


@dataclass(frozen=True)
class EvaluationSet:
    """A set folder whose people and pictures must not be in the set that is cleaned.

    Attributes:
        folder: the set folder.
        manifest: its rows.
        usable: those with a chip.
    """

    folder: SetFolder
    manifest: pa.Table
    usable: Usable

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.root.resolve().name


def open_evaluation(paths: Sequence[Path]) -> list[EvaluationSet]:
    """Return the evaluation sets in set folders.

    Raises:
        InputError: one is no complete set or has no usable face.
    """
    sets = []
    for path in paths:
        folder = open_set(path)
        manifest = read_manifest(folder.manifest)
        usable = select_usable(manifest)
        if not usable.ids:
            raise InputError(f"evaluation set {path} has no usable face; give another one")
        sets.append(EvaluationSet(folder, manifest, usable))
    return sets


def hash_evaluation(sets: Sequence[EvaluationSet]) -> dict[str, str]:
    """Return the manifests' hashes, by the folders' names."""
    return {one.name: sha256_file(one.folder.manifest) for one in sets}


def drop_overlap(
    out: Verdicts,
    usable: Usable,
    embedded: Embedded,
    embedder: Embedder,
    sets: Sequence[EvaluationSet],
    cut: CopyCut,
    hashes: Hashes | None,
    shas: pa.ChunkedArray,
    expected_false: float = 1.0,
) -> list[dict[str, Any]]:
    """Take out identities and pictures that an evaluation set has too, and return the pairs.

    Args:
        out: verdicts, changed in place.
        usable: the rows.
        embedded: their embeddings.
        embedder: what made them.
        sets: the evaluation sets; their embeddings are kept in their own folders.
        cut: from where on two pictures are copies.
        hashes: of the rows' chips, or None.
        shas: text, of the rows' picture files.
        expected_false: identities expected to go though they are of other people.

    Returns:
        One entry a pair of identities that looks like one person: set, identity, evaluation
        identity, centre (cosine or None), name (likeness), pictures, dropped.
    """
    names = out.names[:-1]
    labels = np.where(out.fate < len(names), out.fate, -1)
    own = FaceSet(embedded.vectors, labels, names, hashes, None, _fix_width(shas))
    entries: list[dict[str, Any]] = []
    for one in sets:
        theirs = _read_faces(one, embedder, with_hashes=hashes is not None)
        overlap = find_overlap(own, theirs, cut)
        people, pictures = decide_overlap(overlap, expected_false=expected_false)
        gone = (out.fate >= 0) & (pictures | np.append(people, [False, False])[out.fate])
        out.decide(gone, word.OVERLAP, word.LEAK, check=word.EVALUATION, fate=-1)
        out.score[gone] = np.where(pictures, overlap.cosine, np.nan)[gone]
        out.threshold[gone] = np.nan
        entries.extend(_list_pairs(one.name, names, theirs.names, overlap, people))
    return entries


def write_overlap(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    """Write the list of pairs as Parquet, durable and whole."""
    schema = pa.schema(
        [
            ("set", pa.string()),
            ("identity", pa.string()),
            ("evaluation_identity", pa.string()),
            ("centre", pa.float64()),
            ("name", pa.float64()),
            ("pictures", pa.int64()),
            ("dropped", pa.bool_()),
        ]
    )
    with atomic_path(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(entries), schema), temporary)


def _read_faces(one: EvaluationSet, embedder: Embedder, *, with_hashes: bool) -> FaceSet:
    with one.folder.lock("read"):
        embedded = embed_rows(one.folder, one.manifest, one.usable, embedder)
        looks = look_at_rows(one.folder, one.manifest, one.usable) if with_hashes else None
    kept: Mask = embedded.norms > 0
    usable = one.usable.select(kept)
    shas = one.manifest["sha256"].take(pa.array(usable.rows))
    return FaceSet(
        embedded.vectors[kept],
        usable.labels,
        usable.names,
        None if looks is None else looks.hashes[kept],
        None,
        _fix_width(shas),
    )


def _fix_width(shas: pa.ChunkedArray) -> np.ndarray:
    return np.array(shas.to_pylist(), dtype="S64")


def _list_pairs(
    name: str, mine: Sequence[str], theirs: Sequence[str], overlap: Overlap, people: Mask
) -> list[dict[str, Any]]:
    return [
        {
            "set": name,
            "identity": mine[one],
            "evaluation_identity": theirs[two],
            "centre": float(centre) if np.isfinite(centre) else None,
            "name": float(likeness),
            "pictures": int(pictures),
            "dropped": bool(people[one]),
        }
        for (one, two), centre, likeness, pictures in zip(
            overlap.pairs.tolist(), overlap.centres, overlap.names, overlap.pictures, strict=True
        )
    ]
