"""Chips on disk with labels: from a manifest, a folder a person, RecordIO or tar shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from facerec.checks import InputError, check_range
from facerec.data.chip_set import ChipSet
from facerec.data.images import IMAGE_SUFFIXES
from facerec.data.manifest import read_manifest
from facerec.data.record_index import read_records
from facerec.data.recordio import RecordRanges
from facerec.data.sources import open_source
from facerec.data.tars import name_number, read_tars

__all__ = [
    "ChipSet",
    "build_chip_set",
    "flip_labels",
    "hold_out",
    "read_chip_set",
    "read_unlabelled",
]


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
    names = list(dict.fromkeys(identity for identity, _ in pairs))
    codes = {name: code for code, name in enumerate(names)}
    labels = np.array([codes[identity] for identity, _ in pairs], np.int64)
    everybody = ChipSet(tuple(path for _, path in pairs), labels, tuple(names))
    return _drop_small(everybody, min_images, origin)


def read_chip_set(
    *,
    manifest: Path | None = None,
    folder: Path | None = None,
    records: Path | None = None,
    tars: Path | None = None,
    min_images: int = 2,
    split: str = "",
) -> ChipSet:
    """Return the labelled chips of exactly one place.

    Class numbers become names such as `0000017`.

    Args:
        manifest: a Parquet manifest beside its chips (`clean.parquet` of facerec-clean); rows
            without chip or identity are left out.
        folder: one sub-folder an identity, holding aligned chips.
        records: a RecordIO file (`.rec`, with its `.idx` beside it), or a folder with `train.rec`.
        tars: WebDataset shards: a folder, a pattern such as `SET/*.tar` or one file; pictures
            without a label are left out.
        min_images: identities with fewer chips are dropped.
        split: only rows of this split; "" takes all (manifest only).

    Raises:
        InputError: not exactly one place is given, it cannot be read, or nothing is left.
    """
    check_range(min_images, "min_images", 1, 10**6)
    _check_single("data", manifest=manifest, folder=folder, records=records, tars=tars)
    if split and manifest is None:
        raise InputError(f"split must be empty without a manifest, got {split!r}; remove it")
    if manifest is not None:
        rows = ((path, who) for path, who in _manifest_rows(manifest, split) if who)
        return build_chip_set(rows, min_images, str(manifest))
    if folder is not None:
        return build_chip_set(_folder_rows(folder), min_images, str(folder))
    if records is not None:
        return _drop_small(_read_records(records), min_images, str(records))
    assert tars is not None
    return _drop_small(_read_tars(tars), min_images, str(tars))


def read_unlabelled(
    *, manifest: Path | None = None, folder: Path | None = None, tars: Path | None = None
) -> ChipSet:
    """Return chips of unknown people: every label is -1, there are no identities.

    Args:
        manifest: a Parquet manifest beside its chips; the rows with a chip and without identity.
        folder: aligned chips at any depth.
        tars: WebDataset shards, as in `read_chip_set`; labels in them are passed over.

    Raises:
        InputError: not exactly one place is given, it cannot be read, or it has no such chip.
    """
    _check_single("unlabelled", manifest=manifest, folder=folder, tars=tars)
    if tars is not None:
        index = read_tars(tars)
        nobody = np.full(len(index.chips), -1, np.int64)
        return ChipSet((), nobody, (), packed=index.chips, damage=index.damage)
    if folder is not None:
        paths = [item.path for item in open_source(folder, "loose")]
    else:
        assert manifest is not None
        paths = sorted(path for path, identity in _manifest_rows(manifest) if not identity)
    if not paths:
        raise InputError(
            f"{manifest} must hold chips without an identity, got none; name a manifest of "
            "unknown people, or their folder"
        )
    return ChipSet(tuple(paths), np.full(len(paths), -1, np.int64), ())


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


def flip_labels(chips: ChipSet, share: float, seed: int) -> ChipSet:
    """Return the set with round(share * n) labels wrong, each another identity at random.

    Args:
        chips: with a label each.
        share: of labels to change, [0, 1).
        seed: of which are changed, and to what.

    Returns:
        The set with `truth`: the labels before, the true ones of `chips` where it has them.

    Raises:
        InputError: unlabelled chips, or fewer than two identities to choose from.
    """
    check_range(share, "label_noise", 0, 1)
    identities, count = len(chips.identities), round(share * len(chips))
    if (chips.labels < 0).any():
        raise InputError(
            f"labels can be changed only where chips have one, but {(chips.labels < 0).sum()} of "
            f"{len(chips)} have none; leave them out"
        )
    if count and identities < 2:
        raise InputError(
            f"label_noise needs at least two identities to exchange, got {identities}; set it to 0"
        )
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(chips), count, replace=False)
    labels = chips.labels.copy()
    # A step of 1 to c - 1 around the circle of identities: never back to the same one.
    steps = rng.integers(1, identities, count) if count else 0
    labels[rows] = (labels[rows] + steps) % identities
    return replace(chips, labels=labels, truth=chips.labels if chips.truth is None else chips.truth)


def _drop_small(chips: ChipSet, min_images: int, origin: str) -> ChipSet:
    """Return the identities with enough chips, sorted, their chips together and in order."""
    counts = np.bincount(chips.labels, minlength=len(chips.identities))
    names = chips.identities
    kept = sorted((name, code) for code, name in enumerate(names) if counts[code] >= min_images)
    if not kept:
        raise InputError(
            f"{origin} must hold identities with at least {min_images} chips each, "
            f"got {len(chips)} chips of {len(names)} identities; add pictures or lower min_images"
        )
    positions = np.full(len(names), -1, np.int64)
    positions[[code for _, code in kept]] = np.arange(len(kept))
    labels = positions[chips.labels]
    order = np.argsort(labels, kind="stable")
    rows = order[np.searchsorted(labels[order], 0) :]
    dropped = {name: int(counts[c]) for c, name in enumerate(names) if counts[c] < min_images}
    part = chips.take(rows)
    return replace(part, labels=labels[rows], identities=tuple(n for n, _ in kept), dropped=dropped)


def _read_records(path: Path) -> ChipSet:
    index = read_records(path)
    numbers, labels = np.unique(index.labels, return_inverse=True)
    files = RecordRanges(
        (index.path,), np.zeros(len(index), np.int32), index.offsets, index.lengths, index.keys
    )
    names = tuple(name_number(number) for number in numbers.tolist())
    return ChipSet((), labels.astype(np.int64), names, packed=files, damage=index.damage)


def _read_tars(place: Path) -> ChipSet:
    index = read_tars(place)
    names = dict.fromkeys(index.identities)
    codes = {name: code for code, name in enumerate(name for name in names if name)}
    labels = np.array([codes.get(name, -1) for name in index.identities], np.int64)
    rows = np.flatnonzero(labels >= 0)
    everything = ChipSet((), labels, tuple(codes), packed=index.chips, damage=index.damage)
    return everything.take(rows)


def _check_single(section: str, **places: Path | None) -> None:
    """Raise InputError unless exactly one place is given."""
    given = [name for name, place in places.items() if place is not None]
    if len(given) != 1:
        raise InputError(
            f"exactly one of {_list_keys(section, places)} must be given, got "
            f"{_list_keys(section, given) if given else 'none'}; give {section}.folder=CHIPS or "
            "another one alone"
        )


def _list_keys(section: str, names: Iterable[str]) -> str:
    keys: Sequence[str] = [f"{section}.{name}" for name in names]
    return ", ".join(keys[:-1]) + " and " + keys[-1] if len(keys) > 1 else keys[0]


def _manifest_rows(manifest: Path, split: str = "") -> list[tuple[Path, str]]:
    """Return (chip, identity) of the rows with a chip, of all splits when `split` is ""."""
    table = read_manifest(manifest)
    columns = (table.column(name).to_pylist() for name in ("chip", "identity", "split"))
    return [
        (manifest.parent / chip, identity)
        for chip, identity, part in zip(*columns, strict=True)
        if chip and split in ("", part)
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
