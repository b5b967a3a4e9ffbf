"""Aligned chips with labels, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.data.chip_files import ChipFiles
from facerec.data.images import decode_image, read_bytes

_DIGEST_BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class ChipSet:
    """Aligned chips, most often of known people.

    Attributes:
        paths: n chip files; () when the chips lie in `packed`.
        labels: int64 (n,), positions in `identities`; -1 for nobody known.
        identities: c names, sorted; a label counts among these.
        dropped: identity -> number of chips, for those with too few.
        packed: where the chips lie in big files or in memory; None for a file each.
        truth: int64 (n,), the labels before some were changed on purpose, -1 for a person who is
            not among `identities`; None when none was changed.
        damage: one sentence for each part of the data that could not be read.
    """

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    identities: tuple[str, ...]
    dropped: dict[str, int] = field(default_factory=dict)
    packed: ChipFiles | None = None
    truth: NDArray[np.int64] | None = None
    damage: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        places = len(self.paths) if self.packed is None else len(self.packed)
        assert places == len(self.labels), "each chip has a place and a label"

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """Return a chip's path, or its file and key, such as `train.rec#17`."""
        return str(self.paths[index]) if self.packed is None else self.packed.name(index)

    def read_bytes(self, index: int) -> bytes:
        """Return an encoded chip; any number of threads may read at once.

        Raises:
            UnreadableImageError: it cannot be read; the message names it.
        """
        if self.packed is None:
            return read_bytes(self.paths[index])
        return self.packed.read_bytes(index)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return a chip as uint8 RGB (h, w, 3).

        Raises:
            UnreadableImageError: it cannot be read or decoded; the message names it.
        """
        return decode_image(self.read_bytes(index), self.name(index))

    def describe(self) -> str:
        """Return one line: chips, identities, how many were dropped, and what is damaged."""
        said = f"{len(self):,} chips of {len(self.identities):,} identities"
        if self.dropped:
            said += (
                f" ({len(self.dropped):,} identities with {sum(self.dropped.values()):,} chips "
                "dropped: too few each)"
            )
        if self.damage:
            said += f"; left out as damaged: {'; '.join(self.damage[:3])}"
            said += f"; and {len(self.damage) - 3} more" if len(self.damage) > 3 else ""
        return said

    def digest(self) -> str:
        """Return the sha256 of labels and places: whether a resumed run has the same data.

        Of a file the name counts, not the folder: a set may be moved.
        """
        digest = hashlib.sha256("".join(self.identities).encode())
        if self.packed is not None:
            digest.update(self.labels.tobytes() + self.packed.digest().encode())
            return digest.hexdigest()
        for start in range(0, len(self), _DIGEST_BLOCK):
            block = slice(start, start + _DIGEST_BLOCK)
            rows = zip(self.labels[block], self.paths[block], strict=True)
            digest.update("".join(f"{label}\t{path.name}\n" for label, path in rows).encode())
        return digest.hexdigest()

    def take(self, rows: NDArray[np.int64]) -> ChipSet:
        """Return some of the chips, in the order of `rows` (m,), among the same identities."""
        return replace(
            self,
            paths=() if self.packed is not None else tuple(self.paths[r] for r in rows.tolist()),
            labels=self.labels[rows],
            packed=None if self.packed is None else self.packed.take(rows),
            truth=None if self.truth is None else self.truth[rows],
        )

    def select(self, identities: Collection[str]) -> ChipSet:
        """Return the chips labelled as some identities, with labels counted anew.

        Raises:
            InputError: there are none.
        """
        wanted = frozenset(identities)
        known = np.array([name in wanted for name in self.identities], bool)
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(known))
        kept = known & (counts > 0)
        # One more place, for the label -1.
        positions = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1).astype(np.int64)
        rows = np.flatnonzero(positions[self.labels] >= 0)
        if not len(rows):
            raise InputError(
                f"the selection of {len(wanted)} identities must hold chips, got none among "
                f"{len(self)} chips of {len(self.identities)} identities; check the names"
            )
        part = self.take(rows)
        return replace(
            part,
            labels=positions[part.labels],
            truth=None if part.truth is None else positions[part.truth],
            identities=tuple(n for n, here in zip(self.identities, kept, strict=True) if here),
            dropped={},
        )
