"""The kNN graph of a cleaning round: every row's nearest others, from which all checks read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.graph_exact import (
    Crew,
    Near,
    Rows,
    Vectors,
    check_layout,
    check_vectors,
    gather_crew,
    hash_rows,
    hold_threads,
    search_exact,
)
from data_tools.graph_lists import (
    MIN_ROWS,
    SPAN,
    Plan,
    expand,
    look_up,
    search_lists,
    train_lists,
)
from data_tools.graph_plan import Truth, choose_method, find_plan, find_truth
from data_tools.graph_store import HEAD, INDEX, Column, ShardTable, Table, drop_files, open_head
from facerec.checks import check_one_of, check_range, check_whole, require
from facerec.io import atomic_path, write_json
from facerec.progress import Progress

METHODS = ("auto", "flat", "ivf", "ivfpq")
MAX_NEIGHBOURS = 1024


@dataclass(frozen=True)
class Graph:
    """The k nearest other rows of each of n rows.

    Attributes:
        neighbours: int32 (n, k), row numbers, nearest first, ties by the lower row; the row itself
            is left out; -1 where there are fewer than k.
        scores: float32 (n, k), their exact cosines, -inf for none. A cosine may pass 1 by rounding.
        method: how they were found, in words.
        recall: share of the true k nearest of a sample of rows that was found, 1 if exact. Low by
            construction for a near-exact graph with k beyond the size of an identity: which of a
            thousand strangers are nearest is noise.
        near_recall: the same, of those true neighbours whose score is at or above `floor`; None
            where the sample has none.
        floor: the score from which a neighbour matters, None for an exact graph.
        sampled: rows in the sample, 0 for an exact graph.
    """

    neighbours: NDArray[np.int32]
    scores: NDArray[np.float32]
    method: str
    recall: float | None
    near_recall: float | None
    floor: float | None
    sampled: int

    def describe(self) -> str:
        """Say in a sentence how the graph was made and how good it is."""
        n, k = self.neighbours.shape
        text = f"{n} rows, {k} neighbours, {self.method}"
        if self.sampled:
            text += f"; of {self.sampled} rows {self.recall:.3f} of all true neighbours found"
        if self.sampled and self.near_recall is not None:
            text += f", {self.near_recall:.3f} of those scoring {self.floor:.3f} or more"
        return text


def build_graph(
    vectors: Vectors,
    k: int = 32,
    *,
    method: str = "auto",
    folder: Path | None = None,
    key: str = "",
    seed: int = 0,
    threads: int | None = None,
    target: float = 0.98,
    floor: float | None = None,
    progress: bool = True,
) -> Graph:
    """Find the k nearest other rows of every row.

    "flat" compares every pair. "ivfpq" searches inverted lists of 4-bit codes and compares exactly
    what they offer and the neighbours' neighbours (`data_tools.graph_lists`); "ivf" keeps vectors
    in the lists instead, which takes as much memory again as the vectors. "auto" is flat where
    that is estimated at a minute or less (about 77,000 rows of 512 values on two cores), else
    ivfpq. Under 512 rows everything is flat.

    How many lists are searched is found for the set at hand: more and more, until of the
    neighbours that matter of 512 sampled rows the share `target` is found. Those matter whose
    exact score is at or above `floor`.

    Beside the vectors it takes about (20 k + 50) n bytes for n rows; with a folder, most of that
    is on disk.
    The result does not depend on the number of threads, save by what "auto" takes.

    Args:
        vectors: float32 (n, d), unit norm, row after row in memory or a memory-mapped file.
        k: neighbours a row, 1 to 1024.
        method: "auto", "flat", "ivf" or "ivfpq".
        folder: where to keep the graph, memory-mapped; for one process at a time. A killed run
            goes on at the missing shard and gives what an undisturbed one gives, a finished graph
            is loaded, one of other vectors or settings is replaced.
        key: names the vectors, such as a hash of the model and the row ids; "": their sha256.
        seed: of the samples and of the training.
        threads: cores to use, all when None.
        target: recall of the neighbours that matter to reach, in [0, 1].
        floor: None: the score that a stranger reaches by chance for one row in fifty
            (`data_tools.graph_plan.estimate_floor`).
        progress: show how far it is, on standard error.

    Raises:
        InputError: vectors that are no embeddings, or a setting out of its range.
    """
    check_whole(k, "k", 1, MAX_NEIGHBOURS)
    check_one_of(method, "method", METHODS)
    check_range(target, "target", 0.0, 1.0)
    if floor is not None:
        check_range(floor, "floor", -1.0, 1.0)
    cores = len(os.sched_getaffinity(0)) if threads is None else threads
    check_whole(cores, "threads", 1, 4096)
    vectors = check_layout(vectors)
    if not len(vectors):
        none = np.empty((0, k), np.int32)
        return Graph(none, none.astype(np.float32), Plan("flat").describe(1), 1.0, 1.0, None, 0)
    settings = {
        "key": key or (hash_rows(vectors) if folder is not None else ""),
        "rows": len(vectors),
        "dim": int(vectors.shape[1]),
        "k": k,
        "method": method,
        "seed": seed,
        "target": target,
        "floor": floor,
    }
    place = None if folder is None else Path(folder)
    head = {"settings": settings} if place is None else open_head(place, settings)
    with gather_crew(cores) as crew:
        return _Builder(vectors, head, place, cores, crew, progress).build()


class _Builder:
    """One graph in the making: its head says how far it is."""

    def __init__(
        self,
        vectors: Vectors,
        head: dict[str, Any],
        folder: Path | None,
        threads: int,
        crew: Crew,
        progress: bool,
    ) -> None:
        self._vectors = vectors
        self._head = head
        self._settings = head["settings"]
        self._folder = folder
        self._threads = threads
        self._crew = crew
        self._progress = progress
        self._k: int = self._settings["k"]

    def build(self) -> Graph:
        """Go on where an earlier run was stopped; return the finished graph."""
        n, k = len(self._vectors), self._k
        splits: dict[str, Column] = {
            "neighbours": (slice(0, k), np.int32),
            "scores": (slice(k, 2 * k), np.float32),
        }
        table = ShardTable(self._folder, "row", n, 2 * k, splits)
        arrays = table.load()
        if arrays is None or "result" not in self._head:
            check_vectors(self._vectors)
            if "plan" not in self._head:
                self._note("plan", asdict(self._choose_plan()))
            if arrays is None:
                arrays = self._search(table)
            self._note("result", self._measure(arrays["scores"]))
            self._drop_means()
        method = self._plan.describe(self._vectors.shape[1])
        return Graph(arrays["neighbours"], arrays["scores"], method, **self._head["result"])

    @property
    def _plan(self) -> Plan:
        return Plan(**self._head["plan"])

    @cached_property
    def _truth(self) -> Truth:
        settings = self._settings
        return find_truth(self._vectors, self._k, settings["seed"], settings["floor"], self._crew)

    @cached_property
    def _index(self) -> Any:
        """The lists: those on disk, else trained as they were before."""
        faiss = require("faiss")
        if self._folder is not None and (self._folder / INDEX).is_file():
            with contextlib.suppress(RuntimeError):  # torn: train again
                return faiss.read_index(str(self._folder / INDEX))
        with hold_threads(1, self._threads) as pool:
            arguments = (self._vectors, self._method, self._settings["seed"])
            index = pool.submit(train_lists, *arguments).result()
        if self._folder is not None:
            with atomic_path(self._folder / INDEX) as temporary:
                faiss.write_index(index, str(temporary))
        return index

    @cached_property
    def _method(self) -> str:
        if "plan" in self._head:
            return self._plan.method
        (n, dim), method = self._vectors.shape, str(self._settings["method"])
        if n < MIN_ROWS:
            return "flat"
        return choose_method(n, dim, self._threads) if method == "auto" else method

    def _choose_plan(self) -> Plan:
        if self._method == "flat":
            return Plan("flat")
        target = self._settings["target"]
        return find_plan(self._vectors, self._index, self._method, self._truth, target, self._crew)

    def _search(self, table: ShardTable) -> dict[str, NDArray[Any]]:
        vectors, k = self._vectors, self._k
        if self._method == "flat":
            return self._fill(table, "nearest rows", lambda rows: search_exact(vectors, rows, k))
        base = self._find_candidates()

        def search(rows: Rows) -> Near:
            near = np.asarray(base[rows])
            return expand(vectors, rows, near, look_up(base, near), k)

        return self._fill(table, "neighbours of neighbours", search)

    def _find_candidates(self) -> NDArray[np.int32]:
        """Return what the lists offer each row, int32 (n, max(k, SPAN))."""
        held = max(self._k, SPAN)
        splits: dict[str, Column] = {"base": (slice(0, held), np.int32)}
        table = ShardTable(self._folder, "base", len(self._vectors), held, splits)
        found = table.load()
        if found is None:
            vectors, index, plan = self._vectors, self._index, self._plan
            found = self._fill(
                table,
                "nearest in lists",
                lambda rows: search_lists(vectors, index, plan, rows, held),
            )
        return found["base"]

    def _fill(
        self, table: ShardTable, what: str, work: Callable[[Rows], Near]
    ) -> dict[str, NDArray[Any]]:
        with contextlib.ExitStack() as stack:
            advance: Callable[[int], None] = _ignore
            if self._progress:
                advance = stack.enter_context(Progress(what, len(self._vectors), "rows")).advance

            def compute(first: int, last: int) -> Table:
                rows = np.arange(first, last, dtype=np.int64)
                near, scores = self._crew.map_rows(work, rows, advance=advance)
                packed = np.concatenate([near, scores.view(np.int32)], axis=1)
                return np.ascontiguousarray(packed[:, : table.columns])

            return table.fill(compute, advance)

    def _measure(self, scores: Vectors) -> dict[str, Any]:
        if self._method == "flat":
            return {"recall": 1.0, "near_recall": 1.0, "floor": None, "sampled": 0}
        truth = self._truth
        recall, near = truth.measure(np.asarray(scores[truth.rows]))
        sampled = len(truth.rows)
        return {"recall": recall, "near_recall": near, "floor": truth.floor, "sampled": sampled}

    def _note(self, name: str, value: dict[str, Any]) -> None:
        self._head[name] = value
        if self._folder is not None:
            write_json(self._folder / HEAD, self._head)

    def _drop_means(self) -> None:
        """Remove what only served to find the graph, and what a killed run left."""
        if self._folder is not None:
            drop_files(self._folder, ("base", "row", "index"))


def _ignore(_: int) -> None:
    pass
