"""Compressed codes beside the raw rows: FAISS indices, one a thread, described by a recipe."""

from __future__ import annotations

import contextlib
import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import require
from facerec.gallery.index_probes import move_rows
from facerec.gallery.index_scan import keep_widest
from facerec.gallery.index_threads import Workers

_ADD_ROWS = 16384
_MOST_PARTS = 64
_ROWS_A_LIST = 64  # of the training sample
_LEAST_LISTS, _MOST_LISTS = 1, 16384
_SEED = 0
_TRIALS, _LEAST_TRIALS, _MIXED = 512, 16, 1024
_TRIAL_COSINES = 0.15, 0.6  # where operating thresholds lie


@dataclass(frozen=True)
class Recipe:
    """How a rung codes its rows and how many of them are scored again exactly.

    Attributes:
        name: the rung's.
        factory: text for faiss.index_factory; {parts} becomes the most sub-quantisers up to 64
            that divide the dimension, {lists} the inverted lists, about the root of the rows.
        settings: names and values to set on each FAISS index, such as ("nprobe", 64).
        factor: candidates for each of the k people that are wanted, at least 1.
        least: candidates a query at least.
        most: candidates a query at most, when it is asked again with more.
        sample: rows to train on at most.
        train_at: rows from which there are codes, at least 16 for 4-bit ones; fewer are searched
            exactly.
        share_at: queries times rows from which several threads share one search.
        lossless: the codes are the float32 vectors, so that every answer is exact.
        gpu: the codes lie on the GPUs.
    """

    name: str
    factory: str
    settings: tuple[tuple[str, int], ...] = ()
    factor: int = 8
    least: int = 64
    most: int = 2048
    sample: int = 65536
    train_at: int = 10_000
    share_at: int = 65536
    lossless: bool = False
    gpu: bool = False

    def write_factory(self, dim: int, rows: int) -> str:
        """Return the factory text for this many rows a shard."""
        parts = max(p for p in range(1, min(dim, _MOST_PARTS) + 1) if dim % p == 0)
        lists = 1 << max(0, round(math.log2(max(1, rows)) / 2))
        lists = min(max(lists, _LEAST_LISTS), _MOST_LISTS, max(1, self.sample // _ROWS_A_LIST))
        return self.factory.format(parts=parts, lists=lists)


@dataclass(frozen=True)
class CodeError:
    """How rough scores follow exact ones: rough = offset + gain * exact + error.

    Attributes:
        gain: of a straight line.
        offset: of the line.
        deviation: standard deviation of the error.
    """

    gain: float = 1.0
    offset: float = 0.0
    deviation: float = 0.0

    def find_rough(self, exact: NDArray[np.float32], deviations: float) -> NDArray[np.float32]:
        """Return the rough score that a row of an exact score rarely falls below.

        Args:
            exact: float32, cosines.
            deviations: how rarely, in standard deviations of the error.
        """
        low = self.offset + self.gain * exact.astype(np.float64) - deviations * self.deviation
        return low.astype(np.float32)


class Codes:
    """FAISS indices that hold every T-th slot each, T the number of shards.

    Slot s lies in shard s % T at place s // T: each thread has one index to search, and no table
    is needed to find a row again.

    Args:
        recipe: what to build.
        shards: trained FAISS indices.
        error: of the rough scores.
    """

    def __init__(self, recipe: Recipe, shards: list[Any], error: CodeError) -> None:
        self._recipe = recipe
        self.error = error
        # FAISS's memory for work on a GPU serves one call at a time.
        self._turn = threading.Lock() if recipe.gpu else contextlib.nullcontext()
        self._shards = shards
        self.used = 0
        for shard in shards:
            _set_all(shard, recipe.settings)

    @classmethod
    def train(cls, recipe: Recipe, sample: NDArray[np.float32], rows: int, shards: int) -> Codes:
        """Return empty codes whose quantisers are trained on a sample.

        Args:
            recipe: what to build.
            sample: float32 (n, d).
            rows: that will be added, for the number of inverted lists.
            shards: how many; one for the GPUs, which share out the work themselves.
        """
        faiss = require("faiss")
        dim = sample.shape[1]
        factory = recipe.write_factory(dim, rows)
        blank = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        _accept_small_samples(blank)
        blank.train(np.ascontiguousarray(sample))
        if recipe.gpu:
            return cls(recipe, [faiss.index_cpu_to_all_gpus(blank)], CodeError())
        data = faiss.serialize_index(blank)
        error = CodeError()
        if not recipe.lossless:
            trial = faiss.deserialize_index(data)
            _set_all(trial, recipe.settings)
            error = _measure_error(trial, sample)
        return cls(recipe, [faiss.deserialize_index(data) for _ in range(shards)], error)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the codes, graphs and lists, as they would be written; 0 on a GPU."""
        if self._recipe.gpu:
            return 0
        return sum(_count_bytes(shard) for shard in self._shards)

    def add(self, vectors: NDArray[np.float32], workers: Workers) -> None:
        """Code the slots from `used` on.

        Args:
            vectors: float32 (n, d), the rows of all slots.
            workers: one codes one shard.
        """
        start, count = self.used, len(self._shards)

        def fill(number: int) -> None:
            first = start + (number - start) % count
            for slot in range(first, len(vectors), _ADD_ROWS * count):
                rows = np.ascontiguousarray(vectors[slot : slot + _ADD_ROWS * count : count])
                self._shards[number].add(rows)

        workers.map(fill, range(count))
        self.used = len(vectors)

    def find(
        self, queries: NDArray[np.float32], width: int, workers: Workers
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return each query's best candidates by their codes, in no order.

        Args:
            queries: float32 (m, d), contiguous.
            width: candidates a query.
            workers: one searches one shard, where that pays.

        Returns:
            scores: float32 (m, at most width), rough, -inf = none.
            slots: int64 of the same shape, -1 = none.
        """
        count = len(self._shards)
        width = min(width, self.used)

        def search(number: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
            with self._turn:
                scores, found = self._shards[number].search(queries, width)
            slots = np.where(found >= 0, found * count + number, -1)
            scores[found < 0] = -np.inf
            return scores, slots

        if len(queries) * self.used < self._recipe.share_at:
            parts = [search(number) for number in range(count)]
        else:
            parts = workers.map(search, range(count))
        if count == 1:
            return parts[0]
        scores = np.concatenate([part[0] for part in parts], axis=1)
        slots = np.concatenate([part[1] for part in parts], axis=1)
        scores, slots, _ = keep_widest(scores, slots, width)
        return scores, slots

    def scrub(self, slots: NDArray[np.int64]) -> None:
        """Overwrite the codes of dead slots; a graph keeps its edges, a GPU its copy until later.

        Args:
            slots: int64 (n,).
        """
        count = len(self._shards)
        for number, shard in enumerate(self._shards):
            places = slots[slots % count == number] // count
            if len(places) and not self._recipe.gpu:
                _scrub(shard, places)

    def dump(self) -> list[NDArray[np.uint8]]:
        """Return each shard as bytes."""
        faiss = require("faiss")
        if self._recipe.gpu:
            return []
        return [faiss.serialize_index(shard) for shard in self._shards]

    @classmethod
    def load(
        cls, recipe: Recipe, parts: list[NDArray[np.uint8]], error: CodeError, used: int
    ) -> Codes:
        """Return the codes that `dump` gave; the bytes must be trusted."""
        faiss = require("faiss")
        codes = cls(recipe, [faiss.deserialize_index(part) for part in parts], error)
        codes.used = used
        return codes


def _set_all(shard: Any, settings: tuple[tuple[str, int], ...]) -> None:
    for name, value in settings:
        holder = shard.hnsw if hasattr(shard, "hnsw") else shard
        setattr(holder, name, value)


def _measure_error(trial: Any, sample: NDArray[np.float32]) -> CodeError:
    """Fit the line through rough scores of probes at known cosines of coded rows."""
    rng = np.random.default_rng(_SEED)
    chosen = np.sort(rng.choice(len(sample), min(_TRIALS, len(sample)), replace=False))
    rows = np.ascontiguousarray(sample[chosen])
    exact = rng.uniform(*_TRIAL_COSINES, len(rows))
    probes = move_rows(rows, exact, sample[:_MIXED], rng)
    trial.add(rows)
    scores, found = trial.search(probes, len(rows))
    # Where inverted lists or a graph did not reach its own row, a probe says nothing of codes.
    probe, column = np.nonzero(found == np.arange(len(rows))[:, None])
    if len(probe) < _LEAST_TRIALS:
        return CodeError()
    exact, rough = exact[probe], scores[probe, column].astype(np.float64)
    gain, offset = np.polyfit(exact, rough, 1)
    deviation = np.std(rough - offset - gain * exact)
    return CodeError(float(gain), float(offset), float(deviation))


def _accept_small_samples(blank: Any) -> None:
    """Keep FAISS from writing to standard error that it would like more rows to train on."""
    for holder in (blank, getattr(blank, "pq", None)):
        if holder is not None and hasattr(holder, "cp"):
            holder.cp.min_points_per_centroid = 1


def _scrub(shard: Any, places: NDArray[np.int64]) -> None:
    """Overwrite the codes of some places by that of a zero vector; the places stay.

    A zero vector's score is near 0, so that dead rows do not crowd out candidates. Not by FAISS's
    remove_ids: graphs have none, flat codes would move, and in inverted lists of fast-scan codes
    (FAISS 1.15) a row that is added after a removal is mixed with what lay there.
    """
    faiss = require("faiss")
    if hasattr(shard, "invlists"):
        _scrub_lists(shard, places)
        return
    holder = faiss.downcast_index(shard.storage) if hasattr(shard, "storage") else shard
    codes = holder.codes
    blank = holder.sa_encode(np.zeros((1, holder.d), np.float32))[0]
    if hasattr(codes, "get"):
        _fill_packed(holder.get_CodePacker(), codes.get(), codes.size(), places, blank)
        return
    flat = faiss.rev_swig_ptr(codes.data(), codes.size()).reshape(-1, holder.code_size)
    flat[places] = blank


def _scrub_lists(shard: Any, places: NDArray[np.int64]) -> None:
    faiss = require("faiss")
    lists = faiss.downcast_InvertedLists(shard.invlists)
    for number in range(shard.nlist):
        size = lists.list_size(number)
        if not size:
            continue
        held = np.flatnonzero(np.isin(faiss.rev_swig_ptr(lists.get_ids(number), size), places))
        if not len(held):
            continue
        if hasattr(lists, "n_per_block"):
            blocks = -(-size // lists.n_per_block)
            packer, bytes_held = shard.get_CodePacker(), blocks * lists.block_size
            blank = np.zeros(packer.code_size, np.uint8)
            _fill_packed(packer, lists.get_codes(number), bytes_held, held, blank)
        else:
            codes = faiss.rev_swig_ptr(lists.get_codes(number), size * lists.code_size)
            codes.reshape(size, lists.code_size)[held] = 0


def _fill_packed(
    packer: Any, codes: Any, size: int, places: NDArray[np.int64], blank: NDArray[np.uint8]
) -> None:
    """Overwrite codes of the fast scan: in blocks of 32 rows, interleaved."""
    faiss = require("faiss")
    blocks = faiss.rev_swig_ptr(codes, size).reshape(-1, packer.block_size)
    for place in places.tolist():
        packer.pack_1(blank, place, blocks)


def _count_bytes(shard: Any) -> int:
    """Return about how many bytes an index takes, without writing it."""
    faiss = require("faiss")
    if hasattr(shard, "invlists"):
        lists = shard.invlists
        return int(lists.compute_ntotal() * (shard.code_size + 8) + shard.nlist * shard.d * 4)
    if hasattr(shard, "hnsw"):
        storage = faiss.downcast_index(shard.storage)
        links = shard.hnsw.neighbors.size() * 4 + shard.hnsw.offsets.size() * 8
        return int(links + storage.codes.size())
    return int(shard.codes.size())
