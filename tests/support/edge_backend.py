"""Qdrant's real engine inside the test process: the few client methods a remote index uses."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models
from qdrant_client.http.models import QueryResponse

_MEMORY = Path("/dev/shm")

VACUUM = {"deleted_threshold": 0.0001, "vacuum_min_vector_number": 100}


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder in memory where the system has such: the engine syncs some 100 MB of files."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as name:
        yield Path(name)


class EdgeClient:
    """The part of `qdrant_client.QdrantClient` that facerec calls, over EdgeShard.

    A collection is a folder; what a server would do over HTTP is one call into the engine.

    Args:
        folder: for the collections.
        version: what it says it is.
        like_server: with a write-ahead log, a graph and vacuuming from a few points on.
    """

    def __init__(self, folder: Path, version: str = "1.20.0", like_server: bool = False) -> None:
        self.folder = folder
        self.version = version
        self.like_server = like_server
        self.closed = False
        self._shards: dict[str, edge.EdgeShard] = {}
        self._lock = threading.Lock()

    def info(self) -> models.VersionInfo:
        return models.VersionInfo(title="qdrant", version=self.version)

    def collection_exists(self, collection_name: str) -> bool:
        return (self.folder / collection_name).exists()

    def create_collection(
        self, collection_name: str, vectors_config: models.VectorParams, **ignored: Any
    ) -> bool:
        optimizers = edge.EdgeOptimizersConfig(indexing_threshold=20, **VACUUM)
        config = edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(
                size=vectors_config.size,
                distance=getattr(edge.Distance, vectors_config.distance.value),
            ),
            optimizers=optimizers if self.like_server else None,
            wal_enabled=self.like_server,
        )
        path = self.folder / collection_name
        path.mkdir(parents=True)
        self._shards[collection_name] = edge.EdgeShard.create(str(path), config)
        return True

    def get_collection(self, collection_name: str) -> models.CollectionInfo:
        if not self.collection_exists(collection_name):
            raise ValueError(f"Collection {collection_name} not found")
        raw = json.loads((self.folder / collection_name / "edge_config.json").read_text())
        vectors = raw["vectors"][""]
        return models.CollectionInfo(
            status=models.CollectionStatus.GREEN,
            optimizer_status=models.OptimizersStatusOneOf.OK,
            segments_count=1,
            payload_schema={},
            config=models.CollectionConfig(
                params=models.CollectionParams(
                    vectors=models.VectorParams(size=vectors["size"], distance=vectors["distance"])
                ),
                hnsw_config=models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=10_000),
                optimizer_config=models.OptimizersConfig(
                    deleted_threshold=0.2,
                    vacuum_min_vector_number=1000,
                    default_segment_number=0,
                    flush_interval_sec=5,
                ),
                wal_config=models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0),
            ),
        )

    def create_payload_index(
        self, collection_name: str, field_name: str, field_schema: Any, wait: bool
    ) -> models.UpdateResult:
        if isinstance(field_schema, models.KeywordIndexParams):
            schema: Any = edge.KeywordIndexParams(is_tenant=field_schema.is_tenant)
        else:
            schema = edge.IntegerIndexParams(lookup=field_schema.lookup, range=field_schema.range)
        return self._update(
            collection_name, edge.UpdateOperation.create_field_index(field_name, schema)
        )

    def upsert(
        self, collection_name: str, points: models.Batch, wait: bool = True
    ) -> models.UpdateResult:
        rows = zip(points.ids, points.vectors, points.payloads, strict=True)
        made = [edge.Point(uuid.UUID(str(i)), vector, payload) for i, vector, payload in rows]
        return self._update(collection_name, edge.UpdateOperation.upsert_points(made))

    def delete(
        self, collection_name: str, points_selector: Any, wait: bool = True
    ) -> models.UpdateResult:
        if isinstance(points_selector, models.PointIdsList):
            ids = [uuid.UUID(str(point)) for point in points_selector.points]
            operation = edge.UpdateOperation.delete_points(ids)
        else:
            condition = _translate_filter(points_selector.filter)
            operation = edge.UpdateOperation.delete_points_by_filter(condition)
        return self._update(collection_name, operation)

    def query_batch_points(
        self, collection_name: str, requests: list[models.QueryRequest], **ignored: Any
    ) -> list[QueryResponse]:
        queries = [
            edge.QueryRequest(
                limit=request.limit,
                query=edge.Query.Nearest(list(getattr(request.query, "nearest", request.query))),
                filter=_translate_filter(request.filter),
                with_payload=True,
                params=edge.SearchParams(exact=bool(request.params and request.params.exact)),
            )
            for request in requests
        ]
        answers = self._open(collection_name).query_batch(edge.QueryBatchRequest(queries))
        return [
            QueryResponse(
                points=[
                    models.ScoredPoint(id=str(p.id), version=0, score=p.score, payload=p.payload)
                    for p in answer
                ]
            )
            for answer in answers
        ]

    def retrieve(
        self,
        collection_name: str,
        ids: list[str],
        with_payload: Any = True,
        with_vectors: bool = False,
        **ignored: Any,
    ) -> list[models.Record]:
        points = self._open(collection_name).retrieve(
            [uuid.UUID(str(i)) for i in ids], bool(with_payload), with_vectors
        )
        return [models.Record(id=str(p.id), payload=p.payload, vector=p.vector) for p in points]

    def count(
        self, collection_name: str, count_filter: Any, exact: bool = True
    ) -> models.CountResult:
        request = edge.CountRequest(exact=exact, filter=_translate_filter(count_filter))
        return models.CountResult(count=self._open(collection_name).count(request))

    def scroll(
        self,
        collection_name: str,
        scroll_filter: Any,
        limit: int,
        offset: Any = None,
        **ignored: Any,
    ) -> tuple[list[models.Record], Any]:
        request = edge.ScrollRequest(
            offset=uuid.UUID(str(offset)) if offset else None,
            limit=limit,
            filter=_translate_filter(scroll_filter),
        )
        points, following = self._open(collection_name).scroll(request)
        return [models.Record(id=str(p.id)) for p in points], following and str(following)

    def delete_collection(self, collection_name: str) -> bool:
        shard = self._shards.pop(collection_name, None)
        if shard is not None:
            shard.close()
        path = self.folder / collection_name
        found = path.exists()
        shutil.rmtree(path, ignore_errors=True)
        return found

    def optimize(self, collection_name: str) -> None:
        """What a server does by itself, some time later."""
        shard = self._open(collection_name)
        shard.optimize()
        shard.flush()

    def close(self) -> None:
        self.closed = True
        for shard in self._shards.values():
            shard.flush()
            shard.close()
        self._shards.clear()

    def _open(self, name: str) -> edge.EdgeShard:
        with self._lock:
            if name not in self._shards:
                path = self.folder / name
                if not path.exists():
                    raise ValueError(f"Collection {name} not found")
                self._shards[name] = edge.EdgeShard.load(str(path))
            return self._shards[name]

    def _update(self, name: str, operation: Any) -> models.UpdateResult:
        self._open(name).update(operation)
        return models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)


def _translate_filter(condition: models.Filter | None) -> Any:
    if condition is None:
        return None
    return edge.Filter(
        must=[_translate_field(c) for c in condition.must or []],
        must_not=[_translate_field(c) for c in condition.must_not or []],
    )


def _translate_field(condition: models.FieldCondition) -> Any:
    match = condition.match
    if isinstance(match, models.MatchValue):
        return edge.FieldCondition(condition.key, match=edge.MatchValue(match.value))
    return edge.FieldCondition(condition.key, match=edge.MatchAny(list(match.any)))
