"""Lists of pairs for one-to-one protocols: our CSV form and LFW's own pairs.txt."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, nearest

COLUMNS = ("fold", "same", "image_a", "image_b")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
_SHOWN = 3


@dataclass(frozen=True)
class PairList:
    """n comparisons.

    Attributes:
        name: of the file they came from.
        image_a: path of the first picture, relative to the pictures' folder, with /.
        image_b: path of the second.
        same: bool (n,), whether both show one person.
        folds: int64 (n,).
    """

    name: str
    image_a: list[str]
    image_b: list[str]
    same: NDArray[np.bool_]
    folds: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.image_a)

    def images(self) -> list[str]:
        """Return every picture once, sorted."""
        return sorted({*self.image_a, *self.image_b})


def read_pairs(path: Path, images: Path) -> PairList:
    """Return the pairs in a file, every picture known to exist.

    Args:
        path: a CSV with the columns fold, same, image_a, image_b; or LFW's pairs.txt (first line
            folds and pairs of each kind in a fold, then `name n1 n2` or `name1 n1 name2 n2`;
            pictures are NAME/NAME_0001.jpg, or .jpeg, .png, .bmp, .webp if the folder holds
            those).
        images: the folder that paths are relative to.

    Raises:
        InputError: a missing file, folder or picture, a wrong or missing column or value, a
            picture compared with itself, no pair, or only one fold.
    """
    if not images.is_dir():
        raise InputError(f"{images} must be the folder of the pictures, but is no folder")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise InputError(f"{path} must be a text file of pairs (CSV or LFW's pairs.txt)") from None
    first = text.split("\n", 1)[0].split()
    if first and all(field.isdigit() for field in first):
        pairs = _parse_lfw(path, text.splitlines(), _find_suffix(images))
    else:
        pairs = _parse_csv(path, text)
    _check_pairs(path, pairs)
    _check_images(path, pairs, images)
    return pairs


def identities_of(images: Iterable[str]) -> list[str]:
    """Return the identity of each picture: the name of the folder it lies in.

    Raises:
        InputError: a picture lies in no folder.
    """
    names = []
    for image in images:
        folder = PurePosixPath(image).parent.name
        if not folder:
            raise InputError(
                f"the identity of a picture is the folder it lies in, but {image} lies in none"
            )
        names.append(folder)
    return names


def _parse_csv(path: Path, text: str) -> PairList:
    reader = csv.DictReader(io.StringIO(text), strict=True, skipinitialspace=True)
    found = [name.strip() for name in reader.fieldnames or []]
    if not found:
        raise InputError(f"{path} is empty; expected a CSV with the columns {', '.join(COLUMNS)}")
    for name in found:
        if name not in COLUMNS:
            hint = nearest(name, COLUMNS)
            raise InputError(
                f"{path} has an unknown column {name!r}{hint}; expected {', '.join(COLUMNS)}"
            )
    for name in COLUMNS:
        if found.count(name) != 1:
            raise InputError(f"{path} must have one column {name!r}, got {found.count(name)}")
    reader.fieldnames = found
    sides: tuple[list[str], list[str]] = ([], [])
    same, folds = [], []
    try:
        for row in reader:
            line = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{line}: expected {len(COLUMNS)} values, one a column")
            if row["same"].strip() not in ("0", "1"):
                raise InputError(f"{line}: same must be 0 or 1, got {row['same']!r}")
            folds.append(_parse_integer(row["fold"], line, "fold"))
            same.append(row["same"].strip() == "1")
            # A quoted name may start with a space; none ends with one, it ends like a picture's.
            sides[0].append(row["image_a"].rstrip())
            sides[1].append(row["image_b"].rstrip())
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV: {error}") from None
    return _build(path, sides, same, folds)


def _parse_lfw(path: Path, lines: Sequence[str], suffix: str) -> PairList:
    head = [int(field) for field in lines[0].split()]
    # View 1 (development) has one number only: pairs of each kind in its single fold.
    per_fold = 2 * head[-1]
    fold_count = head[0] if len(head) == 2 else 1
    rows = [line.split() for line in lines[1:] if line.strip()]
    if len(head) > 2 or len(rows) != fold_count * per_fold:
        raise InputError(
            f"{path} announces {fold_count} folds of {per_fold} pairs in its first line, "
            f"but holds {len(rows)} pairs"
        )
    sides: tuple[list[str], list[str]] = ([], [])
    same = []
    for number, row in enumerate(rows, start=2):
        line = f"{path}, line {number}"
        if len(row) not in (3, 4):
            raise InputError(f"{line}: expected `name n1 n2` or `name1 n1 name2 n2`")
        ends = (row[0], row[1]), (row[-2] if len(row) == 4 else row[0], row[-1])
        for side, (person, text) in zip(sides, ends, strict=True):
            count = _parse_integer(text, line, "the picture's number")
            side.append(f"{person}/{person}_{count:04d}{suffix}")
        same.append(len(row) == 3)
    return _build(path, sides, same, [1 + row // per_fold for row in range(len(rows))])


def _build(
    path: Path, sides: tuple[list[str], list[str]], same: list[bool], folds: list[int]
) -> PairList:
    return PairList(
        path.name, sides[0], sides[1], np.array(same, np.bool_), np.array(folds, np.int64)
    )


def _parse_integer(text: str, line: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{line}: {name} must be a whole number, got {text!r}") from None


def _find_suffix(images: Path) -> str:
    """Return the suffix of the first picture in the first folder, .jpg when there is none."""
    for folder in sorted(entry for entry in images.iterdir() if entry.is_dir()):
        for file in sorted(folder.iterdir()):
            if file.suffix in _SUFFIXES:
                return file.suffix
    return ".jpg"


def _check_pairs(path: Path, pairs: PairList) -> None:
    if not len(pairs):
        raise InputError(f"{path} holds no pair")
    for image in pairs.images():
        place = PurePosixPath(image)
        if not image or place.is_absolute() or ".." in place.parts:
            raise InputError(f"{path} must name pictures below the folder given, got {image!r}")
    for row, (a, b) in enumerate(zip(pairs.image_a, pairs.image_b, strict=True), start=1):
        if a == b:
            raise InputError(f"{path} compares {a} with itself in pair {row}")
    if len(np.unique(pairs.folds)) < 2:
        raise InputError(
            f"{path} must have at least 2 folds, got 1: the threshold of a fold is chosen on the "
            "others"
        )
    for kind, count in (("mated", pairs.same.sum()), ("non-mated", (~pairs.same).sum())):
        if not count:
            raise InputError(f"{path} holds no {kind} pair; both kinds are needed")


def _check_images(path: Path, pairs: PairList, images: Path) -> None:
    every = pairs.images()
    missing = [image for image in every if not (images / image).is_file()]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise InputError(
            f"{len(missing)} of {len(every)} pictures that {path} names are not in {images}: "
            f"{', '.join(missing[:_SHOWN])}{more}"
        )
