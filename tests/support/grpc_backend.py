"""The gRPC side of Qdrant's interface on 127.0.0.1, with an engine in this process behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any

import grpc
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

VERSION = "1.20.0"


class GrpcServer:
    """Starts on a free port.

    Args:
        code: name of a gRPC status that every call ends with, "" to answer.
        backend: the engine; the client's own when not given.
    """

    def __init__(self, code: str = "", backend: Any = None) -> None:
        self.called: list[str] = []
        self.code = code
        self.backend = backend or QdrantClient(":memory:", force_disable_check_same_thread=True)
        self._lock = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[_Handler(self)])
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()
        self.backend.close()

    def answer(self, method: str, raw: bytes, context: grpc.ServicerContext) -> bytes:
        self.called.append(method)
        if self.code:
            context.abort(getattr(grpc.StatusCode, self.code), "because")
        request_type, job = _JOBS[method]
        with self._lock:
            try:
                return job(self.backend, request_type.FromString(raw)).SerializeToString()
            except ValueError as error:
                context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        raise AssertionError("abort raises")


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, server: GrpcServer) -> None:
        self._server = server

    def service(self, details: Any) -> Any:
        method = details.method
        return grpc.unary_unary_rpc_method_handler(
            lambda raw, context: self._server.answer(method, raw, context)
        )


def _create(client: Any, request: Any) -> Any:
    config = GrpcToRest.convert_vectors_config(request.vectors_config)
    client.create_collection(request.collection_name, config)
    return messages.CollectionOperationResponse(result=True)


def _exists(client: Any, request: Any) -> Any:
    found = client.collection_exists(request.collection_name)
    return messages.CollectionExistsResponse(result=messages.CollectionExists(exists=found))


def _info(client: Any, request: Any) -> Any:
    info = RestToGrpc.convert_collection_info(client.get_collection(request.collection_name))
    return messages.GetCollectionInfoResponse(result=info)


def _drop(client: Any, request: Any) -> Any:
    return messages.CollectionOperationResponse(
        result=client.delete_collection(request.collection_name)
    )


def _upsert(client: Any, request: Any) -> Any:
    points = [GrpcToRest.convert_point_struct(point) for point in request.points]
    batch = models.Batch(
        ids=[point.id for point in points],
        vectors=[point.vector for point in points],
        payloads=[point.payload for point in points],
    )
    client.upsert(request.collection_name, batch)
    return _done()


def _delete(client: Any, request: Any) -> Any:
    client.delete(request.collection_name, GrpcToRest.convert_points_selector(request.points))
    return _done()


def _query(client: Any, request: Any) -> Any:
    requests = [GrpcToRest.convert_query_points(query) for query in request.query_points]
    if isinstance(client, QdrantClient):  # it always scans, and warns of parameters
        for query in requests:
            query.params = None
    answers = client.query_batch_points(request.collection_name, requests)
    batches = [
        messages.BatchResult(result=[RestToGrpc.convert_scored_point(p) for p in answer.points])
        for answer in answers
    ]
    return messages.QueryBatchResponse(result=batches)


def _retrieve(client: Any, request: Any) -> Any:
    ids = [GrpcToRest.convert_point_id(point) for point in request.ids]
    points = client.retrieve(
        request.collection_name,
        ids,
        with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
        with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
    )
    return messages.GetResponse(result=[_record(point) for point in points])


def _count(client: Any, request: Any) -> Any:
    answer = client.count(request.collection_name, GrpcToRest.convert_filter(request.filter))
    return messages.CountResponse(result=messages.CountResult(count=answer.count))


def _scroll(client: Any, request: Any) -> Any:
    offset = GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None
    points, following = client.scroll(
        request.collection_name,
        GrpcToRest.convert_filter(request.filter),
        request.limit,
        offset=offset,
        with_payload=False,
    )
    return messages.ScrollResponse(
        result=[_record(point) for point in points],
        next_page_offset=RestToGrpc.convert_extended_point_id(following) if following else None,
    )


def _record(point: models.Record) -> Any:
    point.payload = point.payload or {}  # the conversion takes no None
    return RestToGrpc.convert_record(point)


def _done() -> Any:
    result = RestToGrpc.convert_update_result(
        models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)
    )
    return messages.PointsOperationResponse(result=result)


_JOBS: dict[str, tuple[Any, Callable[[Any, Any], Any]]] = {
    "/qdrant.Qdrant/HealthCheck": (
        messages.HealthCheckRequest,
        lambda client, request: messages.HealthCheckReply(title="qdrant", version=VERSION),
    ),
    "/qdrant.Collections/Create": (messages.CreateCollection, _create),
    "/qdrant.Collections/CollectionExists": (messages.CollectionExistsRequest, _exists),
    "/qdrant.Collections/Get": (messages.GetCollectionInfoRequest, _info),
    "/qdrant.Collections/Delete": (messages.DeleteCollection, _drop),
    "/qdrant.Points/CreateFieldIndex": (
        messages.CreateFieldIndexCollection,
        lambda client, request: _done(),
    ),
    "/qdrant.Points/Upsert": (messages.UpsertPoints, _upsert),
    "/qdrant.Points/Delete": (messages.DeletePoints, _delete),
    "/qdrant.Points/QueryBatch": (messages.QueryBatchPoints, _query),
    "/qdrant.Points/Get": (messages.GetPoints, _retrieve),
    "/qdrant.Points/Count": (messages.CountPoints, _count),
    "/qdrant.Points/Scroll": (messages.ScrollPoints, _scroll),
}
