"""A server on 127.0.0.1 that speaks enough of Qdrant's REST interface for the real client.

Behind it stands an engine in this process; faults are played back instead of answers when given.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from qdrant_client import QdrantClient, models

VERSION = "1.20.0"

Fault = Callable[[BaseHTTPRequestHandler], None]


def say_status(status: int, error: str = "", **headers: str) -> Fault:
    """A fault: this status, with Qdrant's JSON around the error."""

    def play(handler: BaseHTTPRequestHandler) -> None:
        body = json.dumps({"status": {"error": error}, "time": 0.0}).encode()
        _send(handler, status, body, headers)

    return play


def say_text(text: str) -> Fault:
    """A fault: 200 and something that is not Qdrant's."""
    return lambda handler: _send(handler, 200, text.encode(), {})


def close_connection(handler: BaseHTTPRequestHandler) -> None:
    """A fault: no answer, the connection ends."""
    handler.close_connection = True


class WireServer:
    """Starts on a free port; `url` is its address.

    Args:
        key: the API key it asks for.
        tls: a server context with a certificate.
        backend: the engine; the client's own when not given.
    """

    def __init__(
        self,
        key: str | None = None,
        tls: ssl.SSLContext | None = None,
        backend: Any = None,
    ) -> None:
        self.key = key
        self.version = VERSION
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.indexes: dict[str, Any] = {}
        self.created: list[dict[str, Any]] = []
        self.queries: list[dict[str, Any]] = []
        self.snapshots: dict[str, bytes] = {}
        self.damage = False
        self.backend = backend or QdrantClient(":memory:", force_disable_check_same_thread=True)
        self.lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(self))
        self._http.daemon_threads = True
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        scheme = "https" if tls else "http"
        host = "localhost" if tls else "127.0.0.1"
        self.url = f"{scheme}://{host}:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self.backend.close()

    def answer(self, method: str, path: str, body: bytes, query: dict[str, list[str]]) -> Any:
        """The `result` of a request; KeyError where there is no such thing."""
        if path == "/":
            return {"title": "qdrant", "version": self.version}
        match = re.fullmatch(r"/collections/([\w-]+)(/.*)?", path)
        if match is None:
            raise KeyError(path)
        name, rest = match[1], match[2] or ""
        if rest.startswith("/snapshots"):
            return self._answer_snapshots(method, name, rest, body, query)
        if rest not in ("", "/exists") and not self.backend.collection_exists(name):
            raise KeyError(f"Not found: Collection `{name}` doesn't exist!")
        given = json.loads(body) if body else {}
        return self._answer_collection(method, name, rest, given)

    def _answer_collection(self, method: str, name: str, rest: str, given: Any) -> Any:
        client = self.backend
        if rest == "/exists":
            return {"exists": client.collection_exists(name)}
        if rest == "" and method == "PUT":
            self.created.append(given)
            return client.create_collection(name, models.VectorParams(**given["vectors"]))
        if rest == "" and method == "DELETE":
            if not client.collection_exists(name):
                raise KeyError("no such collection")
            return client.delete_collection(name)
        if rest == "":
            return client.get_collection(name)
        if rest == "/index":
            self.indexes[given["field_name"]] = given["field_schema"]
            return {"operation_id": 0, "status": "completed"}
        if rest == "/points" and method == "PUT":
            return client.upsert(name, models.Batch(**given["batch"]))
        return self._answer_points(name, rest, given)

    def _answer_points(self, name: str, rest: str, given: Any) -> Any:
        client = self.backend
        if rest == "/points":
            return client.retrieve(
                name, given["ids"], given["with_payload"], given.get("with_vector", False)
            )
        if rest == "/points/delete":
            if "points" in given:
                return client.delete(name, models.PointIdsList(**given))
            return client.delete(name, models.FilterSelector(**given))
        if rest == "/points/count":
            return client.count(name, models.Filter(**given["filter"]))
        if rest == "/points/scroll":
            points, following = client.scroll(
                name,
                models.Filter(**given["filter"]),
                given["limit"],
                offset=given.get("offset"),
                with_payload=False,
            )
            return {"points": points, "next_page_offset": following}
        if rest == "/points/query/batch":
            self.queries += given["searches"]
            requests = [models.QueryRequest(**search) for search in given["searches"]]
            if isinstance(client, QdrantClient):  # it always scans, and warns of parameters
                for request in requests:
                    request.params = None
            return client.query_batch_points(name, requests)
        raise KeyError(rest)

    def _answer_snapshots(
        self, method: str, name: str, rest: str, body: bytes, query: dict[str, list[str]]
    ) -> Any:
        file = rest.removeprefix("/snapshots").removeprefix("/")
        if method == "POST" and file == "":
            points, _ = self.backend.scroll(name, limit=10_000, with_vectors=True)
            label = f"{name}-{len(self.snapshots)}.snapshot"
            rows = [point.model_dump(mode="json") for point in points]
            self.snapshots[label] = json.dumps(rows).encode()
            return self._describe(label)
        if method == "POST" and file == "upload":
            raw = body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
            if [hashlib.sha256(raw).hexdigest()] != query["checksum"]:
                raise KeyError("checksum")
            rows = json.loads(raw)
            points = [
                models.PointStruct(id=r["id"], vector=r["vector"], payload=r["payload"])
                for r in rows
            ]
            self.backend.delete(name, models.FilterSelector(filter=models.Filter()))
            self.backend.upsert(name, points)
            return True
        if method == "GET" and file == "":
            return [self._describe(label) for label in self.snapshots]
        if method == "DELETE":
            del self.snapshots[file]
            return True
        raw = self.snapshots[file]
        return raw[:-1] + b"?" if self.damage else raw

    def _describe(self, label: str) -> dict[str, Any]:
        raw = self.snapshots[label]
        stamp = f"2026-01-01T00:00:0{list(self.snapshots).index(label)}"
        digest = hashlib.sha256(raw).hexdigest()
        return {"name": label, "creation_time": stamp, "size": len(raw), "checksum": digest}


def _make_handler(server: WireServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            parts = urlsplit(self.path)
            with server.lock:
                server.seen.append(f"{self.command} {parts.path}")
                fault = server.faults.pop(0) if server.faults else None
            if fault is not None:
                fault(self)
                return
            if server.key is not None and self.headers.get("api-key") != server.key:
                say_status(401, "Must provide an API key or an Authorization bearer token")(self)
                return
            try:
                with server.lock:
                    result = server.answer(self.command, parts.path, body, parse_qs(parts.query))
            except (KeyError, ValueError) as error:
                say_status(404, str(error.args[0]))(self)
                return
            _send(self, 200, _encode(parts.path, result), {})

        do_GET = do_PUT = do_POST = do_DELETE = handle_any

        def log_message(self, *ignored: Any) -> None:
            pass

    return Handler


def _encode(path: str, result: Any) -> bytes:
    if isinstance(result, bytes):
        return result
    if path == "/":
        return json.dumps(result).encode()
    return json.dumps({"result": _dump(result), "status": "ok", "time": 0.0}).encode()


def _dump(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, list):
        return [_dump(v) for v in value]
    if isinstance(value, dict):
        return {key: _dump(v) for key, v in value.items()}
    return value


def _send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
