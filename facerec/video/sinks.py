"""Where results go as they come: JSON lines, each on disk before the next."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from facerec.checks import InputError


class JsonLines:
    """Context manager that writes one JSON object a line and flushes it.

    Args:
        path: the file, standard output when None. An existing file is replaced.
        keep: whether to keep what was written; a stream without end must not.

    Attributes:
        records: what was written, in order; empty unless kept.
    """

    def __init__(self, path: Path | None = None, keep: bool = False) -> None:
        self.path = path
        self.keep = keep
        self.records: list[dict[str, Any]] = []
        self._file: TextIO = sys.stdout

    def __enter__(self) -> JsonLines:
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("w", encoding="utf-8")
            except OSError as error:
                raise InputError(f"cannot write to {self.path}: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self.path is not None:
            self._file.close()

    def write(self, record: dict[str, Any]) -> None:
        """Write one line; NaN and infinity are refused."""
        self._file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        if self.path is not None:
            os.fsync(self._file.fileno())
        if self.keep:
            self.records.append(record)
