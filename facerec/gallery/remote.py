"""A vector index on a Qdrant server: past one machine, rebuilt from the store like every other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.gallery.index import Ranked, check_numbers, check_rows, check_search, rank_people
from facerec.gallery.index_threads import ReadWriteLock
from facerec.gallery.remote_collection import RemotePlace, drop_collection, open_collection
from facerec.gallery.remote_connection import connect_client
from facerec.gallery.remote_faults import Caller
from facerec.gallery.remote_points import TenantPoints
from facerec.gallery.remote_ranking import Hits, Request, Stored, find_people
from facerec.gallery.remote_settings import RemoteSettings

_PEOPLE_A_FILTER = 10_000
_MARK_OF = "mark_of"


@dataclass(frozen=True)
class Mark:
    """What a server says it holds; written when a sync is done, so never of half of one.

    Attributes:
        version: of the gallery collection.
        rows: how many there were then.
        head: anything else that must agree, such as the head of the audit log.
    """

    version: int
    rows: int
    head: str = ""


def connect_remote(
    settings: RemoteSettings,
    *,
    model_hash: str,
    dim: int,
    tenant: str,
    sleep: Callable[[float], None] = time.sleep,
) -> RemoteIndex:
    """Return the index of one gallery collection on a Qdrant server, made there if it is new.

    Args:
        settings: where the server is and how to reach it.
        model_hash: of the recogniser.
        dim: of its embeddings.
        tenant: uid of the gallery collection.
        sleep: waits between two tries of a request.

    Raises:
        MissingPackageError: qdrant-client is not installed.
        InputError: no server, a wrong key, an untrusted certificate, another dimension, ...
    """
    place = RemotePlace(model_hash, dim, tenant)
    client, caller = connect_client(settings, sleep)
    try:
        open_collection(client, caller, settings, place)
    except BaseException:
        client.close()
        raise
    return RemoteIndex(client, caller, settings, place)


class RemoteIndex:
    """Rows of one tenant of a Qdrant collection, answered per person: a `VectorIndex`.

    Any number of these, in any number of processes, may look at the same rows. What an upsert or
    a removal acknowledged is seen by every later search of the same replica.

    Args:
        client: a `qdrant_client.QdrantClient`, or what has the same methods.
        caller: makes its requests.
        settings: those the client was built with.
        place: which rows; the collection must be there (`connect_remote` sees to that).
    """

    name = "qdrant"

    def __init__(
        self, client: Any, caller: Caller, settings: RemoteSettings, place: RemotePlace
    ) -> None:
        self.dim = place.dim
        self.place = place
        self.settings = settings
        self.exact = settings.always_exact or settings.local
        self._client = client
        self._caller = caller
        self._points = TenantPoints(client, caller, settings, place)
        self._lock = ReadWriteLock()
        self._closed = False

    def __len__(self) -> int:
        with self._lock.read():
            return self._open_points().count()

    def upsert(
        self, ids: NDArray[np.int64], vectors: NDArray[np.float32], owners: NDArray[np.int64]
    ) -> None:
        """Add rows, or replace those whose id is known; the server has applied it on return.

        In several requests: searches may see the first rows before the last are sent. Done
        again, it has the same result.

        Args:
            ids: int64 (n,), not negative, each once.
            vectors: float32 (n, d), unit norm.
            owners: int64 (n,), not negative.

        Raises:
            InputError: bad arrays (nothing was sent), or a request failed in every attempt.
        """
        check_rows(ids, vectors, owners, self.dim)
        step = self.settings.batch_rows
        for start in range(0, len(ids), step):
            part = slice(start, start + step)
            with self._lock.write():
                self._open_points().write(ids[part], vectors[part], owners[part])

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Take rows out of every later answer; unknown ids are passed over.

        The server marks them as deleted. Their bytes leave its disks later: docs/cluster.md.

        Args:
            ids: int64 (n,), not negative.

        Returns:
            How many were there.
        """
        check_numbers(ids, "ids")
        with self._lock.write():
            return self._open_points().delete(np.unique(ids))

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        exact: bool = False,
        people: NDArray[np.int64] | None = None,
    ) -> Ranked:
        """Return each query's k best people by their best row.

        Args:
            queries: float32 (m, d), unit norm.
            k: people a query, at least 1.
            exact: scan every row instead of walking the graph.
            people: only these owners, all when None.

        Returns:
            Scores (float32 of the float64 dot products), owners and rows; ties go to the lowest
            owner, then the lowest id.

        Raises:
            InputError: bad arrays, or a request failed in every attempt.
        """
        check_search(queries, k, self.dim, people)
        blocks: list[list[int] | None] = [None]
        if people is not None:
            wanted = np.unique(people).tolist()
            step = _PEOPLE_A_FILTER
            blocks = [wanted[start : start + step] for start in range(0, len(wanted), step)]
        answers: list[list[tuple[float, int, int]]] = [[] for _ in queries]
        with self._lock.read():
            for block in blocks:
                found = self._find(queries, k, exact or self.exact, block)
                for answer, more in zip(answers, found, strict=True):
                    answer += more
        return _pack(answers, k)

    def list_ids(self) -> NDArray[np.int64]:
        """Return the ids of all rows, int64 (n,), ascending."""
        with self._lock.read():
            return np.array(sorted(self._open_points().iter_ids()), dtype=np.int64)

    def read_mark(self) -> Mark | None:
        """Return what the server says it holds, None before the first mark or after a clearing.

        Raises:
            InputError: the mark is another tenant's or not readable.
        """
        with self._lock.read():
            payload = self._open_points().read_mark()
        if payload is None:
            return None
        try:
            mark = Mark(int(payload["version"]), int(payload["rows"]), str(payload["head"]))
        except (KeyError, TypeError, ValueError):
            mark = None
        if mark is None or payload.get(_MARK_OF) != self.place.tenant:
            raise InputError(
                f"{self.settings.place} holds a mark in {self.place.collection} that is not this "
                "gallery's; rebuild the remote index from the gallery"
            )
        return mark

    def write_mark(self, version: int, head: str = "", rows: int | None = None) -> Mark:
        """Say that everything up to a version of the store is here: the last act of a sync.

        Args:
            version: of the gallery collection.
            head: anything else that must agree.
            rows: how many there must be; the server is asked when None.

        Raises:
            InputError: the server has another number of rows; nothing is marked then.
        """
        with self._lock.write():
            points = self._open_points()
            found = points.count()
            if rows is not None and found != rows:
                raise InputError(
                    f"{self.settings.place} has {found} rows of this gallery after the sync, "
                    f"expected {rows}; does another process fill or clear it? Fill it again"
                )
            mark = Mark(version, found, head)
            points.write_mark({_MARK_OF: self.place.tenant, **vars(mark)})
        return mark

    def clear_mark(self) -> None:
        """Take the mark away: the first act of whatever may leave the rows half done."""
        with self._lock.write():
            self._open_points().delete_mark()

    def explain_lag(self, version: int, head: str = "") -> str:
        """Return why the rows are not those of a version of the store, "" when they are.

        Args:
            version: of the gallery collection, now.
            head: as given to `write_mark`.
        """
        mark = self.read_mark()
        if mark is None:
            return "the remote index was never filled, or filling it was interrupted"
        if mark.version != version:
            what = "behind the gallery" if mark.version < version else "ahead of the gallery"
            return f"the remote index is {what}: version {mark.version}, the gallery's {version}"
        if mark.head != head:
            return "the remote index was filled from another history of this gallery"
        rows = len(self)
        if mark.rows != rows:
            return f"the remote index has {rows} rows, {mark.rows} were there when it was filled"
        return ""

    def clear(self) -> None:
        """Remove the mark and then all rows of this tenant; other tenants' stay."""
        with self._lock.write():
            self._open_points().delete_mark()
            self._points.delete_all()

    def recreate(self) -> None:
        """Drop the Qdrant collection with its files, of every tenant, and make it anew, empty.

        After an erasure this is the way to be sure: see docs/cluster.md. Each gallery that
        shares the collection finds its mark gone and fills its rows in again.
        """
        with self._lock.write():
            self._open_points()
            drop_collection(self._client, self._caller, self.place)
            open_collection(self._client, self._caller, self.settings, self.place)

    def close(self) -> None:
        """Let the connection go; the rows stay. May be called twice."""
        with self._lock.write():
            if not self._closed:
                self._closed = True
                self._client.close()

    def _find(
        self, queries: NDArray[np.float32], k: int, exact: bool, people: list[int] | None
    ) -> list[list[tuple[float, int, int]]]:
        points = self._open_points()
        answers = find_people(_View(points, exact, people), queries, k)
        short = [row for row, answer in enumerate(answers) if len(answer) < k]
        if short and not exact:
            # A graph may end early: that there is nobody else is for a scan to say.
            full = find_people(_View(points, True, people), queries[short], k)
            for row, answer in zip(short, full, strict=True):
                answers[row] = answer
        return answers

    def _open_points(self) -> TenantPoints:
        if self._closed:
            raise InputError("this remote index is closed; connect again")
        return self._points


@dataclass(frozen=True)
class _View:
    """The server as one search sees it."""

    points: TenantPoints
    exact: bool
    people: list[int] | None

    def ask(self, requests: list[Request]) -> list[Hits]:
        return self.points.ask(requests, self.exact, self.people)

    def fetch(self, ids: list[int]) -> Stored:
        return self.points.fetch(ids)


def _pack(answers: list[list[tuple[float, int, int]]], k: int) -> Ranked:
    """Lists of (score, owner, id), several of them joined, as arrays of the k best."""
    flat = [entry for answer in answers for entry in answer]
    return rank_people(
        np.repeat(np.arange(len(answers)), [len(answer) for answer in answers]),
        np.array([owner for _, owner, _ in flat], dtype=np.int64),
        np.array([score for score, _, _ in flat], dtype=np.float32),
        np.array([row for _, _, row in flat], dtype=np.int64),
        (len(answers), k),
    )
