"""The ladder of local indices: which rung fits a gallery's size and this machine's memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_one_of, check_whole, require
from facerec.gallery.index_codes import Recipe
from facerec.gallery.index_compressed import FLOOR, CompressedIndex
from facerec.gallery.index_flat import MOST_DIM, FlatIndex

AUTO = "auto"
FLAT_ROWS = 100_000
"""Rows up to which a scan of everything takes a few milliseconds on two cores."""

_RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("pq4+exact", "PQ{parts}x4fs", share_at=400_000),
        Recipe("rabitq+exact", "RaBitQfs"),
        Recipe("sq8+exact", "SQ8", factor=2, least=32, share_at=16384),
        Recipe(
            "ivf+exact",
            "IVF{lists},PQ{parts}x4fs",
            settings=(("nprobe", 64),),
            share_at=1 << 20,
        ),
        Recipe(
            "hnsw+exact",
            "HNSW32,SQ8",
            settings=(("efSearch", 128),),
            factor=2,
            least=32,
            share_at=0,
        ),
    )
}
_GPU = Recipe("gpu", "Flat", factor=4, least=32, share_at=0, lossless=True, gpu=True)
_ROW_BYTES = 24  # id, owner, place
_MOST_ROWS = 1 << 40


@dataclass(frozen=True)
class Choice:
    """A rung and why.

    Attributes:
        name: the rung.
        explanation: one sentence for the user.
        memory_bytes: what the index will take.
        fits: whether that is no more than the memory there is.
    """

    name: str
    explanation: str
    memory_bytes: int
    fits: bool


def list_rungs() -> list[str]:
    """Return the names of the rungs that this machine can build."""
    return ["flat", *_RECIPES, *([_GPU.name] if _count_gpus() else [])]


def choose_rung(
    rows: int, dim: int, memory_bytes: int | None = None, people: int | None = None
) -> Choice:
    """Choose a rung by size and memory.

    Flat where that is fast enough, on a GPU where there is one; else RaBitQ codes, which find
    everyone above a threshold that the exact scan finds. Rungs that leave out most rows (inverted
    lists, graphs) lose people, so that they are only built by name. Every local rung keeps the
    raw rows in memory; where even they do not fit, the sentence says so.

    Args:
        rows: that the gallery will hold.
        dim: values of a vector.
        memory_bytes: for the index; what is available now when None.
        people: whose rows they are, for the sentence.
    """
    check_whole(rows, "rows", 0, _MOST_ROWS)
    check_whole(dim, "dim", 1, MOST_DIM)
    available = find_available_memory() if memory_bytes is None else memory_bytes
    raw = rows * (4 * dim + _ROW_BYTES)
    codes = rows * (dim // 8 + 8)
    what = f"{rows:,} rows" + ("" if people is None else f" of {people:,} people")
    room = f"{_say_bytes(available)} of memory"
    if raw > available:
        return Choice(
            "flat",
            f"{what} need {_say_bytes(raw)}, but there is {room}: "
            "take a machine with more, or the qdrant backend, which spreads them over several",
            raw,
            False,
        )
    if rows <= FLAT_ROWS:
        return Choice("flat", f"flat: {what} are scanned whole in milliseconds", raw, True)
    if _count_gpus():
        return Choice(_GPU.name, f"gpu: {what} are scanned whole on the GPU", raw, True)
    if raw + codes > available:
        return Choice(
            "flat",
            f"flat: {what} take {_say_bytes(raw)} of {room}, which leaves none for codes; "
            "searches are exact and slow",
            raw,
            True,
        )
    return Choice(
        "rabitq+exact",
        f"rabitq+exact: {what} are too many to scan whole for every query; codes of "
        f"{_say_bytes(codes)} find the candidates, the raw rows score them exactly",
        raw + codes,
        True,
    )


def make_index(
    name: str, dim: int, *, threads: int | None = None, floor: float = FLOOR
) -> FlatIndex:
    """Return an empty index.

    Args:
        name: one of `list_rungs`.
        dim: values of a vector.
        threads: see `FlatIndex`.
        floor: the operating threshold, see `CompressedIndex`.

    Raises:
        InputError: an unknown name.
    """
    check_one_of(name, "index", list_rungs())
    if name == "flat":
        return FlatIndex(dim, threads)
    recipe = _GPU if name == _GPU.name else _RECIPES[name]
    return CompressedIndex(dim, recipe, threads, floor)


def build_index(
    name: str,
    ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    owners: NDArray[np.int64],
    *,
    threads: int | None = None,
    floor: float = FLOOR,
    memory_bytes: int | None = None,
) -> FlatIndex:
    """Return an index of these rows.

    Args:
        name: one of `list_rungs`, or "auto" for what `choose_rung` chooses.
        ids: int64 (n,); see `VectorIndex.upsert`.
        vectors: float32 (n, d), unit norm.
        owners: int64 (n,).
        threads: see `FlatIndex`.
        floor: the operating threshold, see `CompressedIndex`.
        memory_bytes: see `choose_rung`.
    """
    dim = int(np.shape(vectors)[-1])
    if name == AUTO:
        name = choose_rung(len(ids), dim, memory_bytes).name
    else:
        check_one_of(name, "index", [AUTO, *list_rungs()])
    index = make_index(name, dim, threads=threads, floor=floor)
    index.upsert(ids, vectors, owners)
    return index


def find_available_memory() -> int:
    """Return the bytes that this process may still take: the system's, or its group's limit."""
    available = int(os.sysconf("SC_PAGE_SIZE")) * int(os.sysconf("SC_PHYS_PAGES"))
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such group, or "max": no limit
        return available
    return max(0, min(available, limit - used))


def _count_gpus() -> int:
    faiss = require("faiss")
    return int(faiss.get_num_gpus()) if hasattr(faiss, "index_cpu_to_all_gpus") else 0


def _say_bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
