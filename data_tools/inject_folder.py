"""A noisy crawl made from a clean one: links under neutral names, and the truth kept apart."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_tools.centres import Labels
from data_tools.inject import (
    CLEAN,
    DUPLICATE,
    KINDS,
    LEAK,
    LOW_QUALITY,
    OUTLIER,
    NoisePlan,
    NoiseRates,
    plan_noise,
)
from data_tools.inject_pictures import write_changed
from facerec.checks import InputError, check_whole
from facerec.data.images import UnreadableImageError
from facerec.data.sources import FolderWalk, check_folder, name_identity
from facerec.io import atomic_path, lock_folder, sha256_file, sync_file, sync_folder, write_json
from facerec.progress import Progress
from facerec.provenance import versions

CRAWL, TRUTH, INFO = "crawl", "truth.parquet", "inject.json"
ORIGINS = ("set", "outliers", "leak")
"""Which of the three folders a picture of the truth table's `source` lies in."""

_BLOCK = 1 << 16
_GONE = -1


@dataclass(frozen=True)
class _Pictures:
    """Pictures below a folder as columns.

    Attributes:
        root: the folder.
        paths: binary, as the system names them, relative to the root.
        keys: the same as text.
        labels: int64, number of the identity, -1 without one.
        names: the identities, sorted.
    """

    root: Path
    paths: pa.ChunkedArray
    keys: pa.ChunkedArray
    labels: Labels
    names: list[str]

    def path(self, row: int) -> Path:
        """Return where a picture lies."""
        return self.root / os.fsdecode(self.paths[row].as_py())

    def leave_out(self, names: set[str]) -> _Pictures:
        """Return the pictures without those of some identities; numbers stay."""
        codes = [number for number, name in enumerate(self.names) if name in names]
        kept = ~np.isin(self.labels, codes)
        mask = pa.array(kept)
        paths, keys = self.paths.filter(mask), self.keys.filter(mask)
        return _Pictures(self.root, paths, keys, self.labels[kept], self.names)


def inject(
    source: Path,
    out: Path,
    rates: NoiseRates,
    *,
    profile: str = "as is",
    outliers_from: Path | None = None,
    leak_from: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write a noisy crawl of a clean folder-per-identity source, which stays as it is.

    `OUT/crawl/` holds a folder an identity with hard links (copies on another disk); pictures of
    low quality and near-duplicates are written anew. No name there says what a picture is.
    `OUT/truth.parquet`, beside it, does: key, person ("" = nobody of the set), face 0, kind (of
    `data_tools.inject.KINDS`), origin (of `ORIGINS`), source (the picture's path there) and
    copy_of (a duplicate's original, else ""). `OUT/inject.json` has settings and counts.

    Killed at any moment, OUT is not there; the same command then starts anew and gives the same.

    Args:
        source: the clean pictures; those directly in it belong to nobody and are left out.
        out: a new folder, outside the others.
        rates: how much of each kind.
        profile: of folder sizes, see `plan_noise`.
        outliers_from: pictures of strangers, in any folders; a folder that is called as one of
            `source` is left out.
        leak_from: a test set, a folder an identity; likewise.
        seed: of everything random.

    Returns:
        What `inject.json` holds.

    Raises:
        InputError: OUT exists, a folder is missing, or more noise than there are pictures.
    """
    check_whole(seed, "seed", 0, 2**63 - 1)
    _check_places(out, source, rates, outliers_from, leak_from)
    clean = _list_pictures(source)
    own = set(clean.names)
    pools = [None if r is None else _list_pictures(r) for r in (outliers_from, leak_from)]
    strangers, tests = (None if pool is None else pool.leave_out(own) for pool in pools)
    plan = plan_noise(
        clean.labels,
        np.random.default_rng(seed),
        **asdict(rates),
        outlier_pool=0 if strangers is None else len(strangers.labels),
        leak_labels=None if tests is None else tests.labels,
        profile=profile,
    )
    with _build(out) as place:
        sources = (clean, strangers or clean, tests or clean)
        table, unreadable = _write_crawl(place / CRAWL, plan, sources, seed)
        with atomic_path(place / TRUTH) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        info = {
            "settings": {**asdict(rates), "profile": profile},
            "seed": seed,
            "versions": versions(),
            "truth_sha256": sha256_file(place / TRUTH),
            "unreadable": unreadable,
            "unlabelled": int(np.count_nonzero(clean.labels < 0)),
            "of_same_name": sum(
                len(before.labels) - len(after.labels)
                for before, after in zip(pools, (strangers, tests), strict=True)
                if before is not None and after is not None
            ),
            **_count(plan, table),
        }
        write_json(place / INFO, info)
    return info


def _check_places(
    out: Path,
    source: Path,
    rates: NoiseRates,
    outliers_from: Path | None,
    leak_from: Path | None,
) -> None:
    if os.path.lexists(out):
        raise InputError(f"{out} exists; give a new folder")
    for root in (source, outliers_from, leak_from):
        if root is None:
            continue
        inner, outer = out.resolve(), check_folder(root).resolve()
        if inner == outer or outer in inner.parents:
            raise InputError(f"{out} must lie outside {root}; take another")
    for share, pool, option in (
        (rates.outliers, outliers_from, "--outliers-from"),
        (rates.leakage, leak_from, "--leak-from"),
    ):
        if share and pool is None:
            raise InputError(f"{option} must name a folder of pictures to inject a share of them")


def _list_pictures(root: Path) -> _Pictures:
    walk = iter(FolderWalk(check_folder(root)))
    paths, keys, labels = [], [], []
    names: dict[str, int] = {"": -1}
    while block := list(islice(walk, _BLOCK)):
        paths.append(pa.array([os.fsencode(path) for path, _ in block], pa.large_binary()))
        keys.append(pa.array([key for _, key in block], pa.large_string()))
        whose = (name_identity(key) for _, key in block)
        labels.append(np.array([names.setdefault(n, len(names) - 1) for n in whose], np.int64))
    if not labels:
        raise InputError(f"{root} holds no picture; check the path")
    known = list(names)[1:]
    flat = np.concatenate(labels)
    return _Pictures(root, pa.chunked_array(paths), pa.chunked_array(keys), flat, known)


@contextlib.contextmanager
def _build(out: Path) -> Iterator[Path]:
    """Yield a folder to fill, which gets the name `out` at the end; one process at a time."""
    place = out.parent / f".{out.name}.inject"
    with lock_folder(place, "facerec-clean inject"):
        if os.path.lexists(out):  # made while we waited
            raise InputError(f"{out} exists; give a new folder")
        try:
            for left in place.iterdir():  # of a run that was killed
                if left.is_dir():
                    shutil.rmtree(left)
                elif left.name != ".lock":
                    left.unlink()
            yield place
            (place / ".lock").unlink()
            sync_folder(place)
            place.rename(out)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
    sync_folder(out.parent)


def _write_crawl(
    crawl: Path, plan: NoisePlan, sources: Sequence[_Pictures], seed: int
) -> tuple[pa.Table, int]:
    """Write the pictures, and return the truth and how many could not be read to be changed."""
    folders, people = _choose_names(plan, seed)
    for name in folders:
        (crawl / name).mkdir(parents=True)
    origin = np.select([plan.kind == OUTLIER, plan.kind == LEAK], [1, 2], 0)
    number = _number_within(plan.given)
    kind = plan.kind.copy()
    keys: list[pa.Array] = []
    names: list[str] = []
    with Progress("inject", len(kind), "pictures") as progress:
        for row in range(len(kind)):
            picture = sources[origin[row]].path(int(plan.source[row]))
            stem = crawl / folders[plan.given[row]] / f"{number[row]:06d}"
            placed, kind[row] = _place(picture, stem, int(kind[row]), [seed, row])
            names.append(f"{folders[plan.given[row]]}/{placed.name}")
            if len(names) == _BLOCK or row + 1 == len(kind):
                keys.append(pa.array(names, pa.large_string()))
                progress.advance(len(names))
                names = []
    key = pa.chunked_array([*keys, [""]], pa.large_string())  # the last one stands for none
    whom = np.where(plan.person < 0, len(people), plan.person)
    table = pa.table(
        {
            "key": key.slice(0, len(kind)),
            "person": pa.array([*people, ""], pa.large_string()).take(pa.array(whom)),
            "face": pa.array(np.zeros(len(kind), np.int32)),
            "kind": pa.array(KINDS).take(pa.array(np.maximum(kind, CLEAN))),
            "origin": pa.array(ORIGINS).take(pa.array(origin)),
            "source": _take_sources(plan, origin, sources),
            "copy_of": key.take(pa.array(_find_originals(plan))),
        }
    )
    return table.filter(pa.array(kind != _GONE)).sort_by("key"), int((kind != plan.kind).sum())


def _choose_names(plan: NoisePlan, seed: int) -> tuple[list[str], list[str]]:
    """Return neutral names of the folders and of the people; one who owns a folder has its name.

    Of a split person's folders the larger one gives the name.
    """
    people = int(max(plan.person.max(), plan.owner.max())) + 1
    folders = len(plan.owner)
    code = np.random.default_rng([seed, folders]).permutation(folders + people)
    whose = folders + np.arange(people)  # people without a folder of their own
    first = np.setdiff1d(np.arange(folders), plan.splits[:, 1])
    whose[plan.owner[first]] = first
    return [f"p{n:07d}" for n in code[:folders]], [f"p{n:07d}" for n in code[whose]]


def _number_within(given: Labels) -> Labels:
    """Return each row's place among the rows of its folder, int64 (m,)."""
    order = np.argsort(given, kind="stable")
    starts = np.searchsorted(given[order], given[order], side="left")
    place = np.empty(len(given), np.int64)
    place[order] = np.arange(len(given)) - starts
    return place


def _place(source: Path, stem: Path, kind: int, seeds: list[int]) -> tuple[Path, int]:
    """Put one picture into the crawl; return where, and its kind, `_GONE` if it was not put."""
    if kind in (LOW_QUALITY, DUPLICATE):
        try:
            path = write_changed(source, stem, KINDS[kind], np.random.default_rng(seeds))
        except UnreadableImageError:
            if kind == DUPLICATE:
                return stem, _GONE
            kind = CLEAN
        else:
            status = source.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            return path, kind
    path = stem.with_name(stem.name + source.suffix)
    real = os.path.realpath(source)
    try:
        os.link(real, path)
    except FileNotFoundError:
        raise InputError(f"picture {source} has gone; leave the source alone meanwhile") from None
    except OSError:  # another disk, or one without links
        shutil.copy2(real, path)
        sync_file(path)
    return path, kind


def _take_sources(
    plan: NoisePlan, origin: NDArray[np.int64], sources: Sequence[_Pictures]
) -> pa.ChunkedArray:
    """Return each row's picture in the folder that it comes from, text (m,)."""
    starts = np.cumsum([0, *(len(pictures.labels) for pictures in sources[:-1])])
    keys = [chunk for pictures in sources for chunk in pictures.keys.chunks]
    return pa.chunked_array(keys, pa.large_string()).take(pa.array(starts[origin] + plan.source))


def _find_originals(plan: NoisePlan) -> Labels:
    """Return which row each duplicate is a copy of, m for the others, int64 (m,)."""
    rows = len(plan.kind)
    found = np.full(rows, rows, np.int64)
    copies, base = plan.kind == DUPLICATE, ~np.isin(plan.kind, (DUPLICATE, OUTLIER, LEAK))
    place = np.full(int(plan.source.max()) + 1, rows, np.int64)
    place[plan.source[base]] = np.flatnonzero(base)
    found[copies] = place[plan.source[copies]]
    return found


def _count(plan: NoisePlan, table: pa.Table) -> dict[str, Any]:
    kinds = {entry["values"]: entry["counts"] for entry in table["kind"].value_counts().to_pylist()}
    return {
        "pictures": table.num_rows,
        "folders": len(plan.owner),
        "people": len(np.unique(plan.person[plan.person >= 0])),
        "kinds": {kind: kinds.get(kind, 0) for kind in KINDS},
        "splits": len(plan.splits),
        "merges": len(plan.merges),
        "people_left_out": len(plan.left_out),
        "thinned": plan.thinned,
    }
