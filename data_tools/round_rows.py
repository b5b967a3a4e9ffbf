"""The rows that a round judges: those with a chip, their identities as numbers, their halves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_tools.centres import Labels, Mask
from data_tools.log_state import locate_rows


@dataclass(frozen=True)
class Usable:
    """The rows of a manifest that have a chip.

    Attributes:
        rows: int64 (n,), their numbers in the manifest.
        ids: id of each row's embedding.
        labels: int64 (n,), number of the given identity, -1 without one.
        names: the given identities, by number, sorted.
        photos: int64 (n,), rows of one picture share a number.
        half: int8 (n,), 0 or 1, see `find_half`.
        image_ids: text (n,), of each row's picture.
    """

    rows: Labels
    ids: list[str]
    labels: Labels
    names: list[str]
    photos: Labels
    half: NDArray[np.int8]
    image_ids: pa.ChunkedArray

    def select(self, kept: Mask) -> Usable:
        """Return some of the rows; identities that none of them has lose their number."""
        places = np.flatnonzero(kept)
        labels = self.labels[places]
        used = np.unique(labels[labels >= 0])
        number = np.full(len(self.names) + 1, -1, np.int64)
        number[used] = np.arange(len(used))
        return replace(
            self,
            rows=self.rows[places],
            ids=[self.ids[place] for place in places.tolist()],
            labels=number[labels],
            names=[self.names[name] for name in used.tolist()],
            photos=self.photos[places],
            half=self.half[places],
            image_ids=self.image_ids.take(pa.array(places)),
        )


def select_usable(manifest: pa.Table) -> Usable:
    """Return the rows of a manifest that have a chip."""
    rows = np.flatnonzero(pc.not_equal(manifest["chip"], "").to_numpy())
    taken = manifest.select(["chip", "identity", "path", "image_id"]).take(pa.array(rows))
    names = sorted(set(pc.unique(taken["identity"]).to_pylist()) - {""})
    numbers = pc.index_in(taken["identity"], value_set=pa.array(names, pa.string()))
    photos = taken["path"].combine_chunks().dictionary_encode()
    return Usable(
        rows,
        name_embeddings(taken["chip"]),
        pc.fill_null(numbers, -1).to_numpy().astype(np.int64),
        names,
        photos.indices.to_numpy().astype(np.int64) if len(rows) else np.empty(0, np.int64),
        find_half(taken["image_id"]),
        taken["image_id"],
    )


def name_embeddings(chips: pa.ChunkedArray) -> list[str]:
    """Return the id of each chip's embedding: its file's name without folder and ending."""
    names: list[str] = pc.replace_substring_regex(chips, r"^.*/|\.[^./]*$", "").to_pylist()
    return names


def find_half(image_ids: pa.ChunkedArray | pa.Array) -> NDArray[np.int8]:
    """Return which half of the set each picture is in, int8 (n,), 0 or 1.

    By the picture's hash: the same bytes are always in one half, whatever else is in the set.
    """
    last = pc.utf8_slice_codeunits(pc.fill_null(image_ids, ""), -1)
    odd = pc.is_in(last, value_set=pa.array(list("13579bdf")))
    return np.asarray(odd.to_numpy(zero_copy_only=False)).astype(np.int8)


def apply_pins(usable: Usable, manifest: pa.Table, pinned: pa.Table) -> tuple[Usable, Labels]:
    """Return the rows with the identities that people gave them, and whose row is pinned where.

    Args:
        usable: rows of the manifest.
        manifest: with path and face.
        pinned: of `data_tools.decisions.find_pinned`.

    Returns:
        The rows: one that a person put somewhere is labelled so, one that a person took out is not
        labelled at all. And int64 (n,): the number in `names` of the pinned identity, -1 for out,
        -2 for a row that is not pinned.
    """
    pins = np.full(len(usable.rows), -2, np.int64)
    if not pinned.num_rows:
        return usable, pins
    keys = manifest.select(["path", "face"]).take(pa.array(usable.rows))
    place = locate_rows(keys, pinned)
    found = np.flatnonzero(place >= 0)
    given = pinned["identity"].take(pa.array(place[found])).to_pylist()
    names = sorted(set(usable.names) | {name for name in given if name is not None})
    number = {name: code for code, name in enumerate(names)}
    moved = np.array([number[name] for name in usable.names], np.int64)
    labels = np.where(usable.labels >= 0, np.append(moved, -1)[usable.labels], -1)
    pins[found] = [-1 if name is None else number[name] for name in given]
    labels[found] = pins[found]
    used = np.unique(labels[labels >= 0])
    code = np.full(len(names) + 1, -1, np.int64)
    code[used] = np.arange(len(used))
    pins[found] = code[pins[found]]
    whole = replace(usable, labels=code[labels], names=[names[old] for old in used.tolist()])
    return whole, pins
