"""Snapshots of a Qdrant collection: made and kept by the server, fetched and put back as files.

The store is the authority and the remote index is rebuilt from it; a snapshot only saves the time
of that. It is a plain tar of everything in the collection on one node, of every tenant: vectors
unencrypted, those deleted but not yet vacuumed included.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facerec.checks import InputError
from facerec.gallery.remote_collection import RemotePlace
from facerec.gallery.remote_connection import connect_client, open_http
from facerec.gallery.remote_faults import Caller, RemoteError, explain_status, read_words
from facerec.gallery.remote_settings import RemoteSettings
from facerec.io import atomic_path, sha256_file

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Snapshot:
    """One that lies on the server.

    Attributes:
        name: of the file.
        bytes: its size.
        created: when, as the server writes it, "" when it does not say.
        sha256: of the file, "" when the server does not say.
    """

    name: str
    bytes: int
    created: str
    sha256: str


class Snapshots:
    """The snapshots of one Qdrant collection on the node that is asked.

    A cluster makes them node by node: connect to each. Close it, or use it as a context manager.

    Args:
        settings: where the server is; the client's own engine has none.
        place: which collection.

    Raises:
        InputError: as `connect_client`, or the client's own engine is meant.
    """

    def __init__(self, settings: RemoteSettings, place: RemotePlace) -> None:
        if settings.local:
            raise InputError(f"{settings.place} is not a server; snapshots are a server's")
        self.settings = settings
        self.place = place
        self._client, self._caller = connect_client(settings)

    def __enter__(self) -> Snapshots:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def create(self) -> Snapshot:
        """Let the server make one now; returns when it is whole."""
        return _read_snapshot(self._call(self._client.create_snapshot, wait=True))

    def list(self) -> list[Snapshot]:
        """Return those that lie on the server, oldest first."""
        found = [_read_snapshot(raw) for raw in self._call(self._client.list_snapshots)]
        return sorted(found, key=lambda snapshot: (snapshot.created, snapshot.name))

    def delete(self, name: str) -> None:
        """Delete one on the server."""
        self._call(self._client.delete_snapshot, snapshot_name=name, wait=True)

    def download(self, name: str, path: Path) -> None:
        """Fetch one into a file, all or nothing, checked by the sum that the server states.

        Args:
            name: of the snapshot.
            path: the file; keep it where the gallery's key file may be kept, it is not encrypted.

        Raises:
            InputError: no such snapshot, a broken connection, or another sum.
        """
        sums = {snapshot.name: snapshot.sha256 for snapshot in self.list()}
        if name not in sums:
            known = ", ".join(sums) or "none"
            raise InputError(f"{self.settings.url} has no snapshot {name!r}; there: {known}")
        with atomic_path(path) as temporary:
            # For its owner only, from the first byte.
            temporary.chmod(0o600)
            once = Caller(self.settings.url, attempts=1)
            once.call(self._fetch, name, temporary)
            if sums[name] and sha256_file(temporary) != sums[name]:
                raise InputError(
                    f"snapshot {name} arrived damaged: its sum is not the one that the server "
                    "states; fetch it again"
                )

    def restore(self, path: Path) -> None:
        """Put a snapshot file back in place of what this node has of the collection.

        The mark comes back with it, so that the gallery sees how far behind the rows are.

        Args:
            path: a file that `download` wrote, of a server of the same minor version.

        Raises:
            InputError: no such file, or the server refuses it.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such file; name one that a snapshot was fetched into")
        once = Caller(self.settings.url, attempts=1)
        once.call(self._send, path)

    def close(self) -> None:
        """Let the connection go."""
        self._client.close()

    def _fetch(self, name: str, path: Path) -> None:
        from urllib.parse import quote

        address = f"collections/{self.place.collection}/snapshots/{quote(name, safe='')}"
        with open_http(self.settings) as http, http.stream("GET", address) as answer:
            self._check_answer(answer)
            with path.open("wb") as file:
                for block in answer.iter_bytes(_BLOCK_BYTES):
                    file.write(block)

    def _send(self, path: Path) -> None:
        address = f"collections/{self.place.collection}/snapshots/upload"
        options = {"priority": "snapshot", "wait": "true", "checksum": sha256_file(path)}
        with open_http(self.settings) as http, path.open("rb") as file:
            answer = http.post(address, params=options, files={"snapshot": (path.name, file)})
            self._check_answer(answer)

    def _check_answer(self, answer: Any) -> None:
        if answer.status_code != 200:
            words = read_words(answer.read())
            status, reason = answer.status_code, answer.reason_phrase
            fault = explain_status(status, self.settings.url, words, reason)
            raise RemoteError(self._caller.censor(fault))

    def _call(self, function: Any, **arguments: Any) -> Any:
        return self._caller.call(function, self.place.collection, **arguments)


def _read_snapshot(raw: Any) -> Snapshot:
    return Snapshot(raw.name, int(raw.size), str(raw.creation_time or ""), str(raw.checksum or ""))
