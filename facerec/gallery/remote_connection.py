"""A Qdrant client for the given settings, and a plain HTTP one for snapshot files."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

from facerec.checks import InputError, require
from facerec.gallery.remote_collection import check_version
from facerec.gallery.remote_faults import Caller
from facerec.gallery.remote_settings import RemoteSettings, build_tls, read_api_key

PACKAGE = "qdrant-client"


def connect_client(
    settings: RemoteSettings, sleep: Callable[[float], None] = time.sleep
) -> tuple[Any, Caller]:
    """Return a client, and what makes its requests; a server has answered once by then.

    Args:
        settings: where and how.
        sleep: waits between two tries of a request.

    Raises:
        MissingPackageError: qdrant-client is not installed.
        InputError: no server there, a wrong key, an untrusted certificate, too old a server.
    """
    qdrant = require("qdrant_client")
    if settings.local:
        caller = Caller(settings.place, None, 1, 0.0, sleep)
        where = {"path": str(settings.path)} if settings.path else {"location": settings.url}
        # One lock of ours stands before the engine's own check of the calling thread.
        client = caller.call(qdrant.QdrantClient, **where, force_disable_check_same_thread=True)
        return client, caller
    key = read_api_key(settings.api_key_file)
    caller = Caller(settings.url, key, settings.attempts, settings.backoff_s, sleep)
    client = _build_client(qdrant, settings, key)
    try:
        version = str(caller.call(client.info).version)
        if settings.check_version:
            check_version(version, _read_client_version(), settings.url)
    except BaseException:
        client.close()
        raise
    return client, caller


def open_http(settings: RemoteSettings) -> Any:
    """Return an httpx client for what qdrant-client does not offer: files up and down.

    Close it; reads may take as long as the server needs to pack or unpack a snapshot.
    """
    httpx = require("httpx")
    key = read_api_key(settings.api_key_file)
    seconds = max(settings.timeout_s, 3600.0)
    return httpx.Client(
        base_url=settings.url.rstrip("/"),
        headers={"api-key": key} if key else {},
        verify=_choose_trust(settings),
        timeout=httpx.Timeout(settings.timeout_s, read=seconds, write=seconds),
    )


def _build_client(qdrant: Any, settings: RemoteSettings, key: str | None) -> Any:
    options: dict[str, Any] = {"verify": _choose_trust(settings)}
    if settings.prefer_grpc and settings.ca_file is not None:
        options["grpc_options"] = {"root_certificates": settings.ca_file.read_bytes()}
    with warnings.catch_warnings():
        # A key over http is refused by the settings, except to this machine or where allowed.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return qdrant.QdrantClient(
                url=settings.url,
                api_key=key,
                timeout=settings.timeout_s,
                prefer_grpc=settings.prefer_grpc,
                grpc_port=settings.grpc_port,
                # Its own check runs in a thread and only warns; ours is a sentence.
                check_compatibility=False,
                **options,
            )
        except ValueError as error:
            raise InputError(f"{settings.url} is no address of a Qdrant server: {error}") from error


def _choose_trust(settings: RemoteSettings) -> Any:
    """The given authority, else the system's; http:// has no use for reading all of those."""
    return build_tls(settings) or settings.url.lower().startswith("https:")


def _read_client_version() -> str:
    from importlib.metadata import version

    return version(PACKAGE)
