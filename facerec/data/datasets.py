"""Chips of known people on disk, with labels: from a manifest or from a folder a person."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_range
from facerec.data.images import IMAGE_SUFFIXES
from facerec.data.manifest import read_manifest


@dataclass(frozen=True)
class ChipSet:
    """Aligned chips of known people.

    Attributes:
        paths: n chip files.
        labels: int64 (n,), positions in `identities`.
        identities: c names, sorted; a label counts among these.
        dropped: identity -> number of chips, for those with too few.
    """

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    identities: tuple[str, ...]
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def describe(self) -> str:
        """Return one line: chips, identities, and how many were dropped."""
        said = f"{len(self):,} chips of {len(self.identities):,} identities"
        if self.dropped:
            said += (
                f" ({len(self.dropped):,} identities with {sum(self.dropped.values()):,} chips "
                "dropped: too few each)"
            )
        return said

    def digest(self) -> str:
        """Return the sha256 of labels and file names: whether a resumed run has the same data."""
        lines = (
            f"{label}\t{path.name}\n" for label, path in zip(self.labels, self.paths, strict=True)
        )
        return hashlib.sha256("".join([*self.identities, *lines]).encode()).hexdigest()

    def select(self, identities: Collection[str]) -> ChipSet:
        """Return the chips of some identities, with labels counted anew."""
        wanted = frozenset(identities)
        rows = [
            (path, self.identities[label])
            for path, label in zip(self.paths, self.labels, strict=True)
            if self.identities[label] in wanted
        ]
        return build_chip_set(rows, 1, "the selection")


def build_chip_set(rows: Iterable[tuple[Path, str]], min_images: int, origin: str) -> ChipSet:
    """Return the chip set of (chip file, identity) rows, in order of identity and path.

    Args:
        rows: one a chip.
        min_images: identities with fewer chips are dropped, and named in `dropped`.
        origin: what the message calls the data.

    Raises:
        InputError: nothing is left.
    """
    pairs = sorted(((identity, path) for path, identity in rows), key=lambda r: (r[0], str(r[1])))
    counts = Counter(identity for identity, _ in pairs)
    identities = tuple(sorted(name for name, count in counts.items() if count >= min_images))
    if not identities:
        raise InputError(
            f"{origin} must hold identities with at least {min_images} chips each, "
            f"got {len(pairs)} chips of {len(counts)} identities; add pictures or lower min_images"
        )
    positions = {name: label for label, name in enumerate(identities)}
    kept = [(path, positions[name]) for name, path in pairs if name in positions]
    return ChipSet(
        tuple(path for path, _ in kept),
        np.array([label for _, label in kept], np.int64),
        identities,
        {name: count for name, count in counts.items() if name not in positions},
    )


def read_chip_set(
    *, manifest: Path | None, folder: Path | None, min_images: int = 2, split: str = ""
) -> ChipSet:
    """Return the labelled chips of a clean set or of a folder.

    Args:
        manifest: a Parquet manifest beside its chips (`clean.parquet` of facerec-clean); rows
            without chip or identity are left out.
        folder: one sub-folder an identity, holding aligned chips.
        min_images: identities with fewer chips are dropped.
        split: only rows of this split; "" takes all (manifest only).

    Raises:
        InputError: not exactly one place is given, it cannot be read, or nothing is left.
    """
    check_range(min_images, "min_images", 1, 10**6)
    if (manifest is None) == (folder is None):
        raise InputError(
            "exactly one of data.manifest and data.folder must be given, got "
            f"{'neither' if manifest is None else 'both'}; give data.manifest=SET/clean.parquet "
            "or data.folder=CHIPS"
        )
    if manifest is not None:
        return build_chip_set(_manifest_rows(manifest, split), min_images, str(manifest))
    assert folder is not None
    return build_chip_set(_folder_rows(folder), min_images, str(folder))


def hold_out(chips: ChipSet, share: float, seed: int) -> tuple[ChipSet, ChipSet]:
    """Return (kept, held out): whole identities, drawn by `seed`, at least two held out.

    Raises:
        InputError: too few identities to keep two on each side.
    """
    check_range(share, "holdout", 0, 0.9)
    count = max(2, round(share * len(chips.identities)))
    if len(chips.identities) - count < 2:
        raise InputError(
            f"holding out {count} of {len(chips.identities)} identities leaves fewer than two to "
            "train on; lower validation.holdout or add identities"
        )
    drawn = np.random.default_rng(seed).permutation(len(chips.identities))[:count]
    held = {chips.identities[position] for position in drawn}
    return chips.select(set(chips.identities) - held), chips.select(held)


def _manifest_rows(manifest: Path, split: str) -> list[tuple[Path, str]]:
    table = read_manifest(manifest)
    columns = (table.column(name).to_pylist() for name in ("chip", "identity", "split"))
    return [
        (manifest.parent / chip, identity)
        for chip, identity, part in zip(*columns, strict=True)
        if chip and identity and split in ("", part)
    ]


def _folder_rows(folder: Path) -> list[tuple[Path, str]]:
    if not folder.is_dir():
        raise InputError(f"{folder} must be a folder with one sub-folder an identity; check it")
    return [
        (path, child.name)
        for child in sorted(folder.iterdir())
        if child.is_dir() and not child.name.startswith(".")
        for path in sorted(child.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
