"""Shards of a crawl in the layout of img2dataset: 00000.tar, a WebDataset, and 00000.parquet.

The table holds a row for every row of the list and is published after the tar file: where it
lies, the shard is whole.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_tools.crawl_fetch import Fetched
from facerec.checks import InputError
from facerec.io import atomic_path, sha256_bytes

SUCCESS = "success"
FAILED = "failed_to_download"
SHARD_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("url", pa.string()),
        ("identity", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("error_message", pa.string()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("http_status", pa.int32()),
        ("fetched_at", pa.timestamp("us", "UTC")),
    ]
)
"""`status` and `error_message` as img2dataset has them; `reason` is the same, for counting."""
_TEMPORARY = frozenset({".tar", ".parquet", ".json"})


class Shard:
    """One shard under way: pictures on disk in the order of arrival, rows in memory.

    Args:
        folder: where it will lie.
        number: of the shard, from 0.
        rows: most rows of any shard of this crawl; sets how many digits a key has.
        listed: its rows of the list, text columns identity and url.
    """

    def __init__(self, folder: Path, number: int, rows: int, listed: pa.Table) -> None:
        self.number = number
        self.identities: list[str] = listed["identity"].to_pylist()
        self.urls: list[str] = listed["url"].to_pylist()
        self._folder = folder
        self._digits = len(str(rows - 1))
        self._rows: list[dict[str, Any]] = [{} for _ in self.urls]
        self._places: dict[int, tuple[int, int, str]] = {}
        # Has no name: whatever ends the process, nothing of it stays.
        self._arrived: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def add(self, row: int, fetched: Fetched, fetched_at: datetime) -> None:
        """Note what became of a row, 0 for the shard's first; a picture goes to disk.

        Raises:
            OSError: the disk is full.
        """
        found = not fetched.reason
        self._rows[row] = {
            "key": self._build_key(row),
            "url": self.urls[row],
            "identity": self.identities[row],
            "status": SUCCESS if found else FAILED,
            "reason": fetched.reason or None,
            "error_message": fetched.message or None,
            "sha256": sha256_bytes(fetched.data) if found else None,
            "bytes": len(fetched.data) if found else None,
            "http_status": fetched.http_status,
            "fetched_at": fetched_at,
        }
        if found:
            start = self._arrived.seek(0, io.SEEK_END)
            self._arrived.write(fetched.data)
            self._places[row] = (start, len(fetched.data), fetched.suffix)

    def publish(self, about: dict[str, Any]) -> None:
        """Write both files, whole and durable, rows in the order of the list.

        Args:
            about: plain JSON values on how it was fetched; kept in the table's metadata.
        """
        tar, table = name_shard(self._folder, self.number)
        with (
            atomic_path(tar) as temporary,
            tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for row in sorted(self._places):
                self._write_picture(archive, row)
        metadata = {b"facerec.crawl": json.dumps(about, sort_keys=True).encode()}
        rows = pa.Table.from_pylist(self._rows, SHARD_SCHEMA.with_metadata(metadata))
        with atomic_path(table) as temporary:
            pq.write_table(rows, temporary, compression="zstd")

    def close(self) -> None:
        """Let go of what is not published."""
        self._arrived.close()

    def _write_picture(self, archive: tarfile.TarFile, row: int) -> None:
        start, length, suffix = self._places[row]
        record = self._rows[row]
        label = {name: record[name] for name in ("key", "identity", "url", "sha256")}
        self._arrived.seek(start)
        archive.addfile(_build_member(f"{record['key']}.{suffix}", length), self._arrived)
        text = json.dumps(label, ensure_ascii=False).encode()
        archive.addfile(_build_member(f"{record['key']}.json", len(text)), io.BytesIO(text))

    def _build_key(self, row: int) -> str:
        return f"{self.number:05d}{row:0{self._digits}d}"


def _build_member(name: str, length: int) -> tarfile.TarInfo:
    """Return a header that says nothing of who wrote it or when."""
    member = tarfile.TarInfo(name)
    member.size = length
    member.mode = 0o644
    return member


def name_shard(folder: Path, number: int) -> tuple[Path, Path]:
    """Return the paths of a shard's tar file and table."""
    return folder / f"{number:05d}.tar", folder / f"{number:05d}.parquet"


def is_published(folder: Path, number: int) -> bool:
    """Return whether a shard is whole."""
    return all(path.is_file() for path in name_shard(folder, number))


def clear_temporary(folder: Path) -> None:
    """Remove what a killed writer left half; the lock must be held."""
    for path in folder.glob(".*.*"):
        if path.suffix in _TEMPORARY and path.is_file():
            path.unlink()


def iter_counts(folder: Path, shards: int) -> Iterator[tuple[dict[str, int], int]]:
    """Yield for each shard how many rows have which reason ("" = a picture), and the bytes.

    Raises:
        InputError: a table is damaged.
    """
    for number in range(shards):
        _, path = name_shard(folder, number)
        try:
            table = pq.read_table(path, columns=["reason", "bytes"], partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{path} is damaged; delete it and run again: {str(error).splitlines()[0]}"
            ) from error
        counted = pc.value_counts(pc.fill_null(table["reason"], "")).to_pylist()
        yield (
            {entry["values"]: entry["counts"] for entry in counted},
            pc.sum(table["bytes"]).as_py() or 0,
        )
