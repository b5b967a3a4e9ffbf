"""Files that several protocols share: feature matrices, MATLAB lists, lines of text.

- **Feature matrix** (`.bin` of MegaFace and of the Lightweight Face Recognition challenge): four
  little-endian int32 (rows, columns, bytes a row, 5 = OpenCV's float32), then the numbers row by
  row. MegaFace writes one column: a picture's embedding is then the column.
- **MATLAB list**: a cell array of names and a column of ids.
- **Embeddings**: `.npz` with `vectors` (n, d) and, if there, `norms` (n,); `.npy` of vectors.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.io import read_json, write_bytes

_FLOAT32 = 5
_HEADER = struct.Struct("<4i")


def read_matrix(path: Path) -> NDArray[np.float32]:
    """Return a feature matrix, float32 (rows, columns).

    Raises:
        InputError: missing, not such a file, or of another length than it says.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
            if len(head) < _HEADER.size:
                raise InputError(f"{path} must be a feature matrix, but is only {len(head)} bytes")
            rows, columns, stride, kind = _HEADER.unpack(head)
            size = path.stat().st_size - _HEADER.size
            if kind != _FLOAT32 or rows < 1 or columns < 1 or stride != 4 * columns:
                raise InputError(
                    f"{path} must be a float32 feature matrix (rows, columns, 4 * columns, 5), "
                    f"got {(rows, columns, stride, kind)}"
                )
            if size != 4 * rows * columns:
                raise InputError(
                    f"{path} announces {rows} x {columns} numbers, {4 * rows * columns} bytes, but "
                    f"holds {size}; write it again"
                )
            return np.fromfile(file, "<f4").reshape(rows, columns).astype(np.float32, copy=False)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path") from None


def write_matrix(path: Path, vectors: NDArray[Any]) -> None:
    """Write a feature matrix (rows, columns) all or nothing, as the challenge's server reads it.

    Raises:
        InputError: not a matrix of numbers.
    """
    rows = np.ascontiguousarray(vectors, "<f4")
    if rows.ndim != 2 or not rows.size:
        raise InputError(f"features must be a matrix (rows, columns), got {rows.shape}")
    write_bytes(path, _HEADER.pack(*rows.shape, 4 * rows.shape[1], _FLOAT32) + rows.tobytes())


def read_features(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return unit vectors (n, d) and raw norms (n,) of stored embeddings.

    Rows that are not of unit norm count as raw embeddings: they are divided by their norm. A row of
    zeros is a failure.

    Args:
        path: `.npz`, `.npy` or a feature matrix `.bin`.

    Raises:
        InputError: missing, of another kind, NaN or infinity.
    """
    norms: NDArray[Any] | None = None
    if path.suffix == ".bin":
        raw: NDArray[Any] = read_matrix(path)
    else:
        try:
            stored = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise InputError(f"{path} does not exist; check the path") from None
        except (ValueError, OSError, EOFError) as error:
            raise InputError(f"{path} must be .npz, .npy or .bin of embeddings: {error}") from None
        if isinstance(stored, np.ndarray):
            raw = stored
        else:
            if "vectors" not in stored.files:
                raise InputError(f"{path} must hold the array `vectors`, got {stored.files}")
            raw = stored["vectors"]
            norms = stored["norms"] if "norms" in stored.files else None
    if raw.ndim != 2 or not raw.size or not np.issubdtype(raw.dtype, np.floating):
        raise InputError(
            f"embeddings in {path} must be floating (n, d), got {raw.dtype} {raw.shape}"
        )
    lengths = np.linalg.norm(raw.astype(np.float64), axis=1)
    if not np.isfinite(lengths).all():
        row = int(np.flatnonzero(~np.isfinite(lengths))[0])
        raise InputError(f"embeddings in {path} must be finite, but row {row} is not")
    units = np.zeros(raw.shape, np.float32)
    np.divide(raw, lengths[:, None], out=units, where=lengths[:, None] > 0, casting="same_kind")
    if norms is not None and norms.shape != lengths.shape:
        raise InputError(f"norms in {path} must be ({len(raw)},), got {norms.shape}")
    return units, np.asarray(lengths if norms is None else norms, np.float32)


def read_mat_names(path: Path, names: str, ids: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return a MATLAB list of names and their ids, int64.

    Raises:
        InputError: missing, no such variables, or of unequal length.
    """
    table = _load_mat(path)
    for variable in (names, ids):
        if variable not in table:
            raise InputError(f"{path} must hold the variable {variable}, which is missing")
    found = [_text_of(cell, path) for cell in np.asarray(table[names]).ravel()]
    numbers = np.asarray(table[ids]).ravel()
    if not found or len(found) != numbers.size or numbers.dtype.kind not in "iuf":
        raise InputError(
            f"{path} must hold as many {ids} as {names}, got {numbers.size} and {len(found)}"
        )
    return found, numbers.astype(np.int64)


def read_mat_pairs(path: Path, variable: str) -> list[tuple[str, str]]:
    """Return a MATLAB table of two names a row.

    Raises:
        InputError: missing, no such variable, or not two names a row.
    """
    table = _load_mat(path)
    cells = np.asarray(table.get(variable, ()))
    if cells.ndim != 2 or cells.shape[1:] != (2,) or not len(cells):
        raise InputError(f"{path} must hold {variable} with two names a row, got {cells.shape}")
    return [(_text_of(row[0], path), _text_of(row[1], path)) for row in cells]


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are neither empty nor begin with #, stripped.

    Raises:
        InputError: missing or no UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} does not exist; check the path") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} must be a text file in UTF-8") from None
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def read_path_list(path: Path) -> tuple[list[str], list[str] | None]:
    """Return the `path` and, if there, `id` lists of a MegaFace JSON file.

    Raises:
        InputError: missing, no JSON, or without the list.
    """
    value = read_json(path)
    paths = value.get("path") if isinstance(value, dict) else None
    if not isinstance(paths, list) or not paths:
        raise InputError(f"{path} must hold a list `path` of at least one picture")
    people = value.get("id")
    if people is not None and (not isinstance(people, list) or len(people) != len(paths)):
        raise InputError(f"{path} must hold as many `id` as `path`")
    return [str(name) for name in paths], None if people is None else [str(n) for n in people]


def _load_mat(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        with path.open("rb") as file:
            table: dict[str, Any] = loadmat(file)
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"{path} does not exist; check the folder given") from None
    except Exception as error:  # scipy raises many kinds for one cause: not such a file
        raise InputError(f"{path} must be a MATLAB file, but is not readable: {error}") from None
    return table


def _text_of(cell: Any, path: Path) -> str:
    """Return the text in a MATLAB cell."""
    value = cell
    while isinstance(value, np.ndarray) and value.size == 1:
        value = value.ravel()[0]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{path} must hold names as text, got {type(value).__name__}")
    return value.strip()
