"""The points of one tenant of a Qdrant collection: written, removed, counted, asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import require
from facerec.gallery.remote_collection import OWNER, TENANT, RemotePlace
from facerec.gallery.remote_faults import Caller
from facerec.gallery.remote_ranking import Hits, Request, Stored
from facerec.gallery.remote_settings import RemoteSettings

_IDS_A_REQUEST = 1_000


class TenantPoints:
    """What is asked of a server about the rows of one tenant; other tenants' are never touched.

    Args:
        client: a `qdrant_client.QdrantClient`, or what has the same methods.
        caller: makes its requests.
        settings: those the client was built with.
        place: which rows.
    """

    def __init__(
        self, client: Any, caller: Caller, settings: RemoteSettings, place: RemotePlace
    ) -> None:
        self.settings = settings
        self.place = place
        self._client = client
        self._caller = caller
        self._models = require("qdrant_client").models
        self._reading: dict[str, Any] = {}
        if settings.read_consistency:
            kind = self._models.ReadConsistencyType(settings.read_consistency)
            self._reading["consistency"] = kind

    def count(self) -> int:
        """Return the number of rows."""
        answer = self._call(self._client.count, count_filter=self.build_filter(), exact=True)
        return int(answer.count)

    def write(
        self, ids: NDArray[np.int64], vectors: NDArray[np.float32], owners: NDArray[np.int64]
    ) -> None:
        """Write rows in one request; they are applied when it returns."""
        payloads = [{TENANT: self.place.tenant, OWNER: owner} for owner in owners.tolist()]
        self._upsert([self.place.point_id(row) for row in ids.tolist()], vectors, payloads)

    def delete(self, ids: NDArray[np.int64]) -> int:
        """Delete those of the rows that are there; how many they were."""
        gone = 0
        for start in range(0, len(ids), _IDS_A_REQUEST):
            part = ids[start : start + _IDS_A_REQUEST].tolist()
            points = [self.place.point_id(row) for row in part]
            found = self._call(self._client.retrieve, ids=points, with_payload=False)
            if found:
                self._delete_points([point.id for point in found])
            gone += len(found)
        return gone

    def delete_all(self) -> None:
        """Delete every row of the tenant."""
        selector = self._models.FilterSelector(filter=self.build_filter())
        self._call(self._client.delete, points_selector=selector, wait=True)

    def iter_ids(self) -> Iterator[int]:
        """Yield the id of every row."""
        offset: Any = None
        while True:
            points, offset = self._call(
                self._client.scroll,
                scroll_filter=self.build_filter(),
                limit=_IDS_A_REQUEST,
                offset=offset,
                with_payload=False,
                with_vectors=False,
            )
            for point in points:
                yield self.place.row_id(point.id)
            if offset is None:
                return

    def read_mark(self) -> dict[str, Any] | None:
        """Return the payload of the mark, None when there is none."""
        found = self._call(
            self._client.retrieve, ids=[self.place.mark_id], with_payload=True, **self._reading
        )
        return dict(found[0].payload or {}) if found else None

    def write_mark(self, payload: dict[str, Any]) -> None:
        """Write the mark; without a tenant in its payload no search or count meets it."""
        vector = np.zeros((1, self.place.dim), np.float32)
        vector[0, 0] = 1  # a point must have one
        self._upsert([self.place.mark_id], vector, [payload])

    def delete_mark(self) -> None:
        """Delete the mark."""
        self._delete_points([self.place.mark_id])

    def ask(self, requests: list[Request], exact: bool, people: list[int] | None) -> list[Hits]:
        """Answer each request, all in one round trip.

        Args:
            requests: the queries.
            exact: scan every row, and let compressed copies be.
            people: only these owners.
        """
        models = self._models
        params = models.SearchParams(
            exact=exact,
            hnsw_ef=self.settings.hnsw_ef,
            quantization=models.QuantizationSearchParams(ignore=exact, rescore=True),
        )
        queries = [
            models.QueryRequest(
                query=request.vector.tolist(),
                limit=request.width,
                filter=self.build_filter(people, request.without),
                params=None if self.settings.local else params,  # its engine always scans
                with_payload=[OWNER],
                with_vector=False,
            )
            for request in requests
        ]
        answers = self._call(self._client.query_batch_points, requests=queries, **self._reading)
        return [self._read_hits(answer.points) for answer in answers]

    def fetch(self, ids: list[int]) -> Stored:
        """Return owners and vectors of those of the rows that are there."""
        owners: dict[int, int] = {}
        vectors: dict[int, NDArray[np.float32]] = {}
        step = self.settings.batch_rows
        for start in range(0, len(ids), step):
            points = self._call(
                self._client.retrieve,
                ids=[self.place.point_id(row) for row in ids[start : start + step]],
                with_payload=[OWNER],
                with_vectors=True,
                **self._reading,
            )
            for point in points:
                row = self.place.row_id(point.id)
                owners[row] = int(point.payload[OWNER])
                vectors[row] = np.array(point.vector, dtype=np.float32)
        return Stored(owners, vectors)

    def build_filter(self, people: list[int] | None = None, without: tuple[int, ...] = ()) -> Any:
        """Return the condition for rows of this tenant, of these people, not of those."""
        models = self._models
        must = [models.FieldCondition(key=TENANT, match=models.MatchValue(value=self.place.tenant))]
        if people is not None:
            must.append(models.FieldCondition(key=OWNER, match=models.MatchAny(any=people)))
        skip = [models.FieldCondition(key=OWNER, match=models.MatchAny(any=list(without)))]
        return models.Filter(must=must, must_not=skip if without else None)

    def _upsert(
        self, points: list[str], vectors: NDArray[np.float32], payloads: list[dict[str, Any]]
    ) -> None:
        batch = self._models.Batch(ids=points, vectors=vectors.tolist(), payloads=payloads)
        self._call(self._client.upsert, points=batch, wait=True)

    def _delete_points(self, points: list[Any]) -> None:
        selector = self._models.PointIdsList(points=points)
        self._call(self._client.delete, points_selector=selector, wait=True)

    def _read_hits(self, points: list[Any]) -> Hits:
        return Hits(
            np.array([self.place.row_id(point.id) for point in points], dtype=np.int64),
            np.array([point.payload[OWNER] for point in points], dtype=np.int64),
            np.array([point.score for point in points], dtype=np.float64),
        )

    def _call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        return self._caller.call(function, self.place.collection, **arguments)
