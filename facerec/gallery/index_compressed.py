"""Compressed rungs: codes find candidates, the raw rows score them exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facerec.checks import check_range
from facerec.gallery.index import NOBODY, Ranked, build_empty
from facerec.gallery.index_codes import CodeError, Codes, Recipe
from facerec.gallery.index_flat import FlatIndex
from facerec.gallery.index_scan import (
    find_slack,
    flatten,
    place,
    rank_slots,
)

FLOOR = 0.3
"""Cosine that no operating threshold of a good recogniser lies below, by far."""

_DEVIATIONS = 3.0
_WIDEN = 8
_DEAD_SHARE = 0.25
_LEAST_DEAD = 1024
_RETRAIN_GROWTH = 8
_FEW_ALLOWED = 0.25
_QUERIES_AT_ONCE = 1024
_SEED = 0


class CompressedIndex(FlatIndex):
    """Codes of a recipe beside raw rows; every score that it answers is exact.

    A query's candidates are the rows with the best codes. They are scored exactly, and the query
    is asked again with eight times as many where they hold fewer than k people, or where a row
    that is not among them may still matter: a row as good as the k-th person and the floor could,
    by the error of the codes (measured when they are trained; three standard deviations), have a
    rough score below the last candidate's. Up to `recipe.most` candidates.

    Below `recipe.train_at` rows there are no codes and every answer is exact. The quantisers are
    trained again when the rows have grown eightfold. A removed row leaves a dead slot, whose
    vector and code are overwritten; a quarter of dead slots are closed up by coding anew.

    Args:
        dim: values of a vector.
        recipe: of the codes.
        threads: shards of the codes, one searched by each; the usable cores when None.
        floor: cosine below which a missed person does not matter: the operating threshold.
            Ranks below it may then be filled by another than the exact person.
    """

    def __init__(
        self, dim: int, recipe: Recipe, threads: int | None = None, floor: float = FLOOR
    ) -> None:
        super().__init__(dim, threads)
        self.recipe = recipe
        self.name = recipe.name
        self.exact = recipe.lossless
        self.floor = float(check_range(floor, "floor", -1, 1))
        self.codes: Codes | None = None
        self.trained_on = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes that rows and codes take in memory."""
        with self.lock.read():
            coded = 0 if self.codes is None else self.codes.memory_bytes
            return self.rows.memory_bytes + coded

    def close(self) -> None:
        """Overwrite the rows, let go of codes, memory and threads."""
        super().close()
        self.codes = None

    def dump(self) -> list[NDArray[np.uint8]]:
        """Return the codes as bytes, a part a shard; the caller holds the lock."""
        return [] if self.codes is None else self.codes.dump()

    def restore(self, parts: list[NDArray[np.uint8]], error: CodeError, trained_on: int) -> None:
        """Take codes that `dump` gave for these rows, or code anew where it gave none."""
        with self.lock.write():
            if parts:
                self.codes = Codes.load(self.recipe, parts, error, self.rows.used)
                self.trained_on = trained_on
            elif trained_on:
                self._rebuild()

    def _replace(
        self,
        slots: NDArray[np.int64],
        ids: NDArray[np.int64],
        vectors: NDArray[np.float32],
        owners: NDArray[np.int64],
    ) -> None:
        if self.codes is None:
            super()._replace(slots, ids, vectors, owners)
        elif len(slots):
            self.rows.clear(slots)
            self.codes.scrub(slots)
            self.rows.append(ids, vectors, owners)

    def _added(self) -> None:
        if self.codes is None:
            if len(self) >= self.recipe.train_at:
                self._rebuild()
            return
        if self._is_outgrown() or self._has_many_dead():
            self._rebuild()
            return
        codes, self.codes = self.codes, None  # if coding is stopped half way, rows alone are left
        codes.add(self.rows.vectors, self.workers)
        self.codes = codes

    def _removed(self, slots: NDArray[np.int64]) -> None:
        if self.codes is None:
            super()._removed(slots)
            return
        if len(slots):
            self.codes.scrub(slots)
            if self._has_many_dead():
                self._rebuild()

    def _is_outgrown(self) -> bool:
        sample = self.recipe.sample
        better = min(self.trained_on, sample) < sample or "{lists}" in self.recipe.factory
        return better and len(self) >= _RETRAIN_GROWTH * self.trained_on

    def _has_many_dead(self) -> bool:
        # A GPU's copy cannot be overwritten in place.
        least = 0 if self.recipe.gpu else max(_LEAST_DEAD, _DEAD_SHARE * self.rows.used)
        return self.rows.dead > least

    def _rebuild(self) -> None:
        """Close up dead slots, train and code everything."""
        self.codes = None
        self.trained_on = 0
        self.rows.close_gaps()
        if len(self) < self.recipe.train_at:
            return
        rng = np.random.default_rng(_SEED)
        size = min(len(self), self.recipe.sample)
        slots = np.sort(rng.choice(len(self), size, replace=False))
        count = self.workers.count
        vectors = self.rows.vectors
        codes = Codes.train(self.recipe, vectors[slots], len(self) // count, count)
        codes.add(vectors, self.workers)
        self.codes, self.trained_on = codes, len(self)

    def _answer(
        self,
        queries: NDArray[np.float32],
        k: int,
        exact: bool,
        allowed: NDArray[np.bool_] | None,
        skip: NDArray[np.int64] | None,
    ) -> Ranked:
        few = allowed is not None and np.count_nonzero(allowed) < _FEW_ALLOWED * len(self)
        if exact or few or self.codes is None:
            return super()._answer(queries, k, exact, allowed, skip)
        ranked = build_empty(len(queries), k)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            chosen = np.arange(start, min(start + _QUERIES_AT_ONCE, len(queries)))
            self._answer_some(self.codes, queries, chosen, allowed, skip, ranked)
        return ranked

    def _answer_some(
        self,
        codes: Codes,
        queries: NDArray[np.float32],
        pending: NDArray[np.int64],
        allowed: NDArray[np.bool_] | None,
        skip: NDArray[np.int64] | None,
        ranked: Ranked,
    ) -> None:
        """Answer the pending queries, with more candidates for those that need them."""
        k = ranked.scores.shape[1]
        most = self.recipe.most
        width = min(max(self.recipe.factor * k, self.recipe.least), most)
        least = np.full(len(pending), -np.inf, np.float32)
        lacking = pending
        while len(pending) and width < self.rows.used:
            left_out = None if skip is None else skip[pending]
            part, last = self._rerank(codes, queries[pending], k, width, least, allowed, left_out)
            place(ranked, pending, part)
            lacks = part.owners[:, -1] == NOBODY
            least = self._find_least(codes, part.scores[:, -1])
            again = lacks | (last > least)
            # Of exact codes nothing may be missed; of others, no more than the most is asked.
            lacking = pending[again] if self.exact else pending[lacks]
            pending, least = pending[again], least[again]
            if width == most:
                break
            width = min(_WIDEN * width, most)
        else:
            lacking = pending
        if len(lacking):
            left_out = None if skip is None else skip[lacking]
            place(ranked, lacking, super()._answer(queries[lacking], k, True, allowed, left_out))

    def _find_least(self, codes: Codes, last: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the rough score below which a row no longer matters.

        Args:
            codes: that were searched.
            last: float32 (m,), the exact score of the k-th person, -inf = none.
        """
        if self.exact:
            return np.asarray(last - np.float32(find_slack(self.dim)), np.float32)
        wanted = np.maximum(last, np.float32(self.floor))
        rough: NDArray[np.float32] = codes.error.find_rough(wanted, _DEVIATIONS)
        # Where people are lacking every candidate counts.
        rough[np.isneginf(last)] = -np.inf
        return rough

    def _rerank(
        self,
        codes: Codes,
        queries: NDArray[np.float32],
        k: int,
        width: int,
        least: NDArray[np.float32],
        allowed: NDArray[np.bool_] | None,
        skip: NDArray[np.int64] | None,
    ) -> tuple[Ranked, NDArray[np.float32]]:
        """Rank the best candidates by their exact scores.

        Returns:
            The answers, and float32 (m,): the rough score of each query's last candidate.
        """
        rough, slots = codes.find(queries, width, self.workers)
        asked, found = flatten(self.rows, slots, skip, rough >= least[:, None])
        if allowed is not None:
            kept = allowed[found]
            asked, found = asked[kept], found[kept]
        ranked = rank_slots(self.rows, queries, asked, found, k, self.workers)
        # Where fewer were found than asked for, none is left that the codes could give.
        return ranked, rough.min(axis=1)
