"""The Qdrant collection of one recogniser: its name, its making, and whether it fits."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

from facerec.checks import InputError, check_whole, require
from facerec.gallery.remote_faults import Caller, RemoteError
from facerec.gallery.remote_settings import RemoteSettings

TENANT = "tenant"
OWNER = "owner"

_LEAST_SERVER = (1, 11)
"""`is_tenant` came with this one; the query interface is older."""

_MINORS_BEHIND = 2
"""A client is tested by its makers against servers this many minor versions older."""

_MARK_ID = 2**64 - 1


@dataclass(frozen=True)
class RemotePlace:
    """Which rows of a server are meant: those of one gallery collection under one recogniser.

    Attributes:
        model_hash: of the recogniser; galleries with the same one share a Qdrant collection.
        dim: of its embeddings.
        tenant: uid of the gallery collection, on every point.
    """

    model_hash: str
    dim: int
    tenant: str

    def __post_init__(self) -> None:
        check_whole(self.dim, "dim", 1, 65_536)
        for value, name in ((self.model_hash, "model hash"), (self.tenant, "collection uid")):
            if not value or not value.isprintable() or len(value) > 200:
                raise InputError(f"{name} must be 1 to 200 printable characters, got {value!r:.60}")

    @property
    def collection(self) -> str:
        """The name of the Qdrant collection."""
        digest = hashlib.sha256(self.model_hash.encode()).hexdigest()[:24]
        return f"facerec-{digest}-{self.dim}"

    def point_id(self, row: int) -> str:
        """Return the point of a row: 64 bits of the tenant's hash, then the row id."""
        return str(uuid.UUID(int=(self._prefix << 64) | row))

    def row_id(self, point: Any) -> int:
        """Return the row of a point that `point_id` made."""
        return uuid.UUID(str(point)).int & _MARK_ID

    @property
    def mark_id(self) -> str:
        """The point that holds the mark; no row has its number, since row ids are int64."""
        return self.point_id(_MARK_ID)

    @property
    def _prefix(self) -> int:
        digest = hashlib.sha256(b"facerec tenant\0" + self.tenant.encode()).digest()
        return int.from_bytes(digest[:8], "big")


def open_collection(
    client: Any, caller: Caller, settings: RemoteSettings, place: RemotePlace
) -> None:
    """Make the collection and its payload indexes if they are missing; refuse one that differs.

    Dot product rather than cosine: Qdrant normalises vectors for the latter, and what comes back
    must be bit for bit what went in, for scores to be those of every other index.

    Raises:
        InputError: another dimension or distance, or the server refuses.
    """
    if not caller.call(client.collection_exists, place.collection):
        try:
            caller.call(_create, client, settings, place)
        except InputError:
            # Another process may have been quicker, or an answer that was lost had done it.
            if not caller.call(client.collection_exists, place.collection):
                raise
    info = caller.call(client.get_collection, place.collection)
    check_collection(info, caller.place, place)
    if settings.local:
        return  # its engine has no payload indexes
    models = require("qdrant_client").models
    schemas = {
        TENANT: models.KeywordIndexParams(type="keyword", is_tenant=True),
        OWNER: models.IntegerIndexParams(type="integer", lookup=True, range=False),
    }
    for name, schema in schemas.items():
        if name not in (info.payload_schema or {}):
            caller.call(
                client.create_payload_index,
                place.collection,
                field_name=name,
                field_schema=schema,
                wait=True,
            )


def check_collection(info: Any, address: str, place: RemotePlace) -> None:
    """Raise InputError unless a collection holds plain float32 vectors of the place's kind."""
    vectors = info.config.params.vectors
    size = getattr(vectors, "size", None)
    distance = str(getattr(vectors, "distance", "")).rpartition(".")[2].lower()
    datatype = str(getattr(vectors, "datatype", None) or "float32").rpartition(".")[2].lower()
    if (size, distance, datatype) != (place.dim, "dot", "float32"):
        got = f"{size or 'named'} dimensions, {distance or 'no'} distance, {datatype}"
        raise InputError(
            f"{address} has a collection {place.collection} of another kind ({got}; expected "
            f"{place.dim}, dot, float32); drop it there, it is rebuilt from the gallery"
        )


def check_version(server: str, client: str, address: str) -> None:
    """Raise InputError if a server is too old: for what is asked of it, or for the client.

    Args:
        server: its version, such as "1.17.0".
        client: the installed qdrant-client's.
        address: for the message.
    """
    theirs, ours = _read_version(server), _read_version(client)
    if theirs is None or ours is None:
        raise InputError(
            f"{address} says it is version {server!r:.40}; is it a Qdrant server? Otherwise "
            "correct the address"
        )
    if theirs[0] != ours[0] or theirs[1] < ours[1] - _MINORS_BEHIND or theirs < _LEAST_SERVER:
        least = max(_LEAST_SERVER, (ours[0], ours[1] - _MINORS_BEHIND))
        raise InputError(
            f"{address} runs Qdrant {server}, the installed qdrant-client is {client} and needs "
            f"{least[0]}.{least[1]} or later; update the server, or run: "
            f'pip install "qdrant-client=={theirs[0]}.{theirs[1]}.*"'
        )


def _read_version(text: str) -> tuple[int, int] | None:
    parts = text.split(".")
    if len(parts) < 2 or not parts[0].isdecimal() or not parts[1].isdecimal():
        return None
    return int(parts[0]), int(parts[1])


def _create(client: Any, settings: RemoteSettings, place: RemotePlace) -> None:
    models = require("qdrant_client").models
    quantization = None
    if settings.quantization == "int8":
        quantization = models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(
                type=models.ScalarType.INT8, quantile=0.99, always_ram=True
            )
        )
    client.create_collection(
        place.collection,
        vectors_config=models.VectorParams(
            size=place.dim, distance=models.Distance.DOT, on_disk=settings.on_disk
        ),
        # No graph over everything: each search is of one tenant, whose own graph is built.
        hnsw_config=models.HnswConfigDiff(m=0, payload_m=settings.hnsw_m),
        quantization_config=quantization,
        shard_number=settings.shard_number,
        replication_factor=settings.replication_factor,
        write_consistency_factor=settings.write_consistency_factor,
    )


def drop_collection(client: Any, caller: Caller, place: RemotePlace) -> bool:
    """Delete the collection with its files, of every tenant; whether there was one."""
    try:
        return bool(caller.call(client.delete_collection, place.collection))
    except RemoteError as error:
        if error.fault.missing:
            return False
        raise
