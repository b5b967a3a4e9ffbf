"""Where a Qdrant server is and how to reach it; the key is read when connecting, never kept."""

from __future__ import annotations

import os
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from facerec.checks import InputError, check_one_of, check_range, check_whole

KEY_VARIABLE = "FACEREC_QDRANT_KEY"
MEMORY = ":memory:"
READ_CONSISTENCIES = ("", "majority", "quorum", "all")
QUANTIZATIONS = ("none", "int8")

_KEY_FILE_LIMIT = 16_384
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class RemoteSettings:
    """How to reach a Qdrant server, and how a collection is made where there is none yet.

    Safe to print and to store: of the key it has only the name of its file.

    Attributes:
        url: `https://HOST:6333`, or `:memory:` for the client's own engine (tests, trials).
        path: a folder for the client's own engine, instead of `url`.
        api_key_file: holds the API key or token alone; FACEREC_QDRANT_KEY when not given.
        ca_file: certificates to trust instead of the system's, PEM.
        allow_plain: vectors (and a key) may travel unencrypted to another machine.
        timeout_s: seconds for one request, at least 1; the client counts in whole ones.
        attempts: tries of one request before its fault is reported.
        backoff_s: seconds before the second try; doubled for each one after it.
        prefer_grpc: use `grpc_port` for points: less to send than JSON.
        grpc_port: of the same host.
        shard_number: of a new collection; the server's choice when None.
        replication_factor: copies of each shard of a new collection.
        write_consistency_factor: copies that must have a write before it is acknowledged.
        read_consistency: "" (any one copy), "majority", "quorum" or "all".
        quantization: "none" or "int8" for candidates; answers are scored from float32 anyway.
        on_disk: vectors of a new collection stay on disk, cached as memory allows.
        hnsw_m: links a node of a new collection's graph.
        hnsw_ef: candidates that a search keeps on its way through the graph: more finds more.
        always_exact: scan everything, as with `exact=True`, in every search.
        check_version: refuse a server that is too old for the client.
        batch_rows: rows a request of an upsert.

    Raises:
        InputError: a value that cannot be, or an address that would give something away.
    """

    url: str = ""
    path: Path | None = None
    api_key_file: Path | None = None
    ca_file: Path | None = None
    allow_plain: bool = False
    timeout_s: float = 30.0
    attempts: int = 4
    backoff_s: float = 0.25
    prefer_grpc: bool = False
    grpc_port: int = 6334
    shard_number: int | None = None
    replication_factor: int = 1
    write_consistency_factor: int = 1
    read_consistency: str = ""
    quantization: str = "none"
    on_disk: bool = False
    hnsw_m: int = 16
    hnsw_ef: int = 256
    always_exact: bool = False
    check_version: bool = True
    batch_rows: int = 256

    def __post_init__(self) -> None:
        check_range(self.timeout_s, "timeout_s", 1, 3600)
        check_whole(self.attempts, "attempts", 1, 10)
        check_range(self.backoff_s, "backoff_s", 0, 60)
        check_whole(self.grpc_port, "grpc_port", 1, 65535)
        if self.shard_number is not None:
            check_whole(self.shard_number, "shard_number", 1, 1024)
        check_whole(self.replication_factor, "replication_factor", 1, 64)
        check_whole(
            self.write_consistency_factor, "write_consistency_factor", 1, self.replication_factor
        )
        check_one_of(self.read_consistency, "read_consistency", READ_CONSISTENCIES)
        check_one_of(self.quantization, "quantization", QUANTIZATIONS)
        check_whole(self.hnsw_m, "hnsw_m", 4, 256)
        check_whole(self.hnsw_ef, "hnsw_ef", 1, 65_536)
        check_whole(self.batch_rows, "batch_rows", 1, 4096)
        self._check_address()

    @property
    def local(self) -> bool:
        """Whether the client's own engine is meant and no server."""
        return self.path is not None or self.url == MEMORY

    @property
    def place(self) -> str:
        """What messages call it."""
        return str(self.path) if self.path is not None else self.url

    def _check_address(self) -> None:
        if (self.path is None) == (not self.url):
            raise InputError(
                "a remote index needs the address of a Qdrant server, such as "
                "https://HOST:6333, or a folder, not both and not neither"
            )
        if self.local:
            return
        parts = urlsplit(self.url)
        if parts.username is not None or parts.password is not None or parts.query:
            # Addresses are printed and logged: what they hold is not echoed here either.
            raise InputError(
                f"the address of a Qdrant server must not carry a user, a password or a query; "
                f"put the key into a file or into {KEY_VARIABLE}"
            )
        try:
            port_fits = parts.port is None or parts.port > 0
        except ValueError:
            port_fits = False
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_fits:
            raise InputError(
                f"the address of a Qdrant server must look like https://HOST:6333, got {self.url!r}"
            )
        if parts.scheme == "http" and not self.allow_plain and parts.hostname not in _LOOPBACK:
            raise InputError(
                f"{self.url} would send face vectors unencrypted to another machine; give the "
                "server a certificate and use https:// (docs/cluster.md), or allow it explicitly "
                "on a network that nobody else is on"
            )


def read_api_key(file: Path | None) -> str | None:
    """Return the API key from a file, else from FACEREC_QDRANT_KEY, else None.

    Raises:
        InputError: no such file, readable by others, empty, or not one line of text.
    """
    if file is None:
        text, place = os.environ.get(KEY_VARIABLE, ""), KEY_VARIABLE
        if not text:
            return None
    else:
        text, place = _read_key_file(file), str(file)
    key = text.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(
            f"{place} must hold the server's API key alone, one line of printable ASCII without "
            "spaces; write it again"
        )
    return key


def build_tls(settings: RemoteSettings) -> ssl.SSLContext | None:
    """Return what a https:// connection trusts: the ca file alone, or None for the system's.

    Raises:
        InputError: the file is missing or holds no certificate.
    """
    if settings.ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file))
    except FileNotFoundError:
        raise InputError(
            f"{settings.ca_file}: no such file; it must hold the certificate of the authority "
            "that signed the server's, as PEM"
        ) from None
    except (ssl.SSLError, OSError) as error:
        raise InputError(
            f"{settings.ca_file} holds no usable certificate ({error}); it must be PEM, the "
            "authority's that signed the server's"
        ) from error


def _read_key_file(file: Path) -> str:
    try:
        mode = file.stat().st_mode
        if not stat.S_ISREG(mode):
            raise InputError(f"{file} is not a file; name one that holds the server's API key")
        if mode & 0o077:
            raise InputError(f"{file} may be read by others; close it first: chmod 600 {file}")
        data = file.read_bytes()[:_KEY_FILE_LIMIT]
    except OSError as error:
        raise InputError(
            f"{file} cannot be read ({error.strerror}); it must hold the server's API key"
        ) from error
    return data.decode("ascii", "replace")
