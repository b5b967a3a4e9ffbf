"""The manifest: one row a face of a picture, or a picture without one and the reason why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from facerec.checks import InputError, nearest
from facerec.io import atomic_path
from facerec.structures import FACE_POLICIES

MANIFEST_VERSION = 1
_VERSION_KEY = b"facerec.manifest"

MANIFEST_SCHEMA: pa.Schema = pa.schema(
    [
        ("image_id", pa.string()),  # first 16 hex digits of sha256; "" = the file was not readable
        ("path", pa.string()),  # relative to the root of the source, with /
        ("identity", pa.string()),  # "" = unlabelled
        ("source", pa.string()),
        ("split", pa.string()),
        ("width", pa.int32()),  # of the upright picture in pixels; 0 = never decoded
        ("height", pa.int32()),
        ("box", pa.list_(pa.float32())),  # x1 y1 x2 y2 inside the picture; null = no face
        ("landmarks", pa.list_(pa.float32())),  # five times x y; null = no face
        ("det_score", pa.float32()),  # in [0, 1]; null = no face
        ("sha256", pa.string()),  # of the picture file
        ("face", pa.int32()),  # number of the face in its picture, from 0
        ("faces", pa.int32()),  # how many were found, before the policy
        ("policy", pa.string()),  # "" where no policy was applied
        ("chip", pa.string()),  # chip file relative to the set folder; "" = none
        ("reason", pa.string()),  # "" = usable, else why there is no chip
    ],
    metadata={_VERSION_KEY: str(MANIFEST_VERSION).encode()},
)
"""Columns, order and types of a manifest. A row is known by (path, face)."""

_NULLABLE = frozenset({"box", "landmarks", "det_score"})
_DEFAULTS: dict[str, Any] = {
    "identity": "",
    "source": "",
    "split": "",
    "box": None,
    "landmarks": None,
    "det_score": None,
    "face": 0,
    "faces": 0,
    "policy": "",
    "chip": "",
    "reason": "",
}
_BOX_SLACK = 0.01  # pixels: float32 rounding of a box that touches the picture's edge


def build_manifest(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return a checked manifest of rows given as mappings.

    `path`, `sha256`, `width` and `height` are required; `image_id` follows from `sha256`; what
    else is absent is empty. Arrays are taken for `box` (4,) and `landmarks` (5, 2) or (10,).

    Raises:
        InputError: a key is unknown or missing, or `check_manifest` refuses a row.
    """
    columns: dict[str, list[Any]] = {name: [] for name in MANIFEST_SCHEMA.names}
    for number, row in enumerate(rows):
        for key in row:
            if key not in columns:
                raise InputError(
                    f"manifest row {number} has the unknown column {key!r}{nearest(key, columns)}"
                )
        values = {"image_id": str(row.get("sha256", ""))[:16], **_DEFAULTS, **row}
        for name, column in columns.items():
            if name not in values:
                raise InputError(f"manifest row {number} must have {name!r}, which is missing")
            value = values[name]
            if name in ("box", "landmarks") and value is not None:
                value = np.asarray(value, np.float32).ravel()
            column.append(value)
    try:
        table = pa.table(columns, schema=MANIFEST_SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise InputError(f"manifest rows must fit the schema's types: {error}") from error
    return check_manifest(table, "manifest")


def read_manifest(path: Path) -> pa.Table:
    """Return the checked manifest in a Parquet file.

    Raises:
        InputError: no such file, not Parquet, another version, or a row breaks the schema.
    """
    try:
        table = pq.read_table(path, memory_map=False, partitioning=None)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path") from None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        first_line = str(error).splitlines()[0]
        raise InputError(f"{path} must be a Parquet manifest, but: {first_line}") from error
    version = (table.schema.metadata or {}).get(_VERSION_KEY, str(MANIFEST_VERSION).encode())
    if version != str(MANIFEST_VERSION).encode():
        raise InputError(
            f"{path} is a manifest of version {version.decode(errors='replace')}, but this facerec "
            f"reads version {MANIFEST_VERSION}; ingest the source again"
        )
    return check_manifest(table, str(path))


def write_manifest(table: pa.Table, path: Path) -> None:
    """Check a manifest and write it as Parquet, all or nothing.

    Raises:
        InputError: a row breaks the schema; nothing is written.
    """
    checked = check_manifest(table, str(path))
    with atomic_path(path) as temporary:
        pq.write_table(checked, temporary, compression="zstd")


def check_manifest(table: pa.Table, name: str = "manifest") -> pa.Table:
    """Return `table` with the schema's own types and column order if every row keeps the rules.

    Args:
        table: the columns of `MANIFEST_SCHEMA` in any order; wider integer, float and text types
            are taken where no value is lost.
        name: how messages call it.

    Raises:
        InputError: a column is missing, unknown or of another type, or a row breaks a rule: the
            message has its number from 0, its path and the rule.
    """
    table = _cast_columns(table, name)
    for column in MANIFEST_SCHEMA.names:
        if column not in _NULLABLE and table[column].null_count:
            _refuse(table, name, pc.is_null(table[column]), f"{column} must not be null")
    for mask, rule in _iter_rules(table):
        if mask.any():
            _refuse(table, name, mask, rule)
    keys = pc.binary_join_element_wise(
        table["path"], pc.cast(table["face"], pa.string()), "\0"
    ).combine_chunks()
    codes = keys.dictionary_encode()
    if len(codes.dictionary) != len(keys):
        numbers = codes.indices.to_numpy()
        repeated = np.ones(len(numbers), bool)
        repeated[np.unique(numbers, return_index=True)[1]] = False
        _refuse(table, name, repeated, "path and face must be unique, but stand in an earlier row")
    return table


def _cast_columns(table: pa.Table, name: str) -> pa.Table:
    for column in table.column_names:
        if column not in MANIFEST_SCHEMA.names:
            hint = nearest(column, MANIFEST_SCHEMA.names)
            raise InputError(f"{name} has the unknown column {column!r}{hint}")
    missing = [column for column in MANIFEST_SCHEMA.names if column not in table.column_names]
    if missing:
        raise InputError(f"{name} must have the column {missing[0]!r}, which is missing")
    columns = []
    for field in MANIFEST_SCHEMA:
        column = table[field.name]
        if column.type != field.type:
            same_kind = any(
                kind(column.type) and kind(field.type) for kind in _KINDS
            ) or pa.types.is_null(column.type)
            try:
                if not same_kind:
                    raise pa.ArrowInvalid("another kind of value")
                # Floats lose digits, not meaning; integers out of range still raise.
                column = pc.cast(column, field.type, safe=not pa.types.is_floating(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise InputError(
                    f"{name}: column {field.name!r} must be {field.type}, got {column.type}"
                ) from None
        columns.append(column)
    return pa.table(columns, schema=MANIFEST_SCHEMA)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_float_list(kind: pa.DataType) -> bool:
    nested = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return bool(nested and pa.types.is_floating(kind.value_type))


_KINDS: tuple[Callable[[pa.DataType], bool], ...] = (
    _is_text,
    pa.types.is_integer,
    pa.types.is_floating,
    _is_float_list,
)


def _refuse(table: pa.Table, name: str, mask: Any, rule: str) -> None:
    row = int(np.flatnonzero(np.asarray(mask, bool))[0])
    path = table["path"][row].as_py()
    raise InputError(f"{name}, row {row} ({path!r}): {rule}")


def _iter_rules(table: pa.Table) -> Iterable[tuple[np.ndarray[Any, np.dtype[np.bool_]], str]]:
    """Yield (bool (n,): rows that break it, the rule) for every rule on values."""

    def text(column: str, pattern: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return _array(pc.match_substring_regex(table[column], pattern))

    def empty(column: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return _array(pc.equal(table[column], ""))

    sha_empty, reason_empty = empty("sha256"), empty("reason")
    yield ~text("sha256", "^[0-9a-f]{64}$") & ~sha_empty, "sha256 must be 64 hex digits"
    yield sha_empty & reason_empty, "sha256 may be empty only with a reason"
    prefix = pc.utf8_slice_codeunits(table["sha256"], 0, 16)
    yield (
        _array(pc.not_equal(table["image_id"], prefix)),
        "image_id must be the first 16 digits of sha256",
    )
    yield empty("path"), "path must not be empty"
    yield (
        text("path", r"^/|(^|/)\.\.(/|$)"),
        "path must be relative to the source's root and stay inside it",
    )
    yield (
        text("chip", r"^/|(^|/)\.\.(/|$)"),
        "chip must be relative to the set's folder and stay inside it",
    )
    known = _array(pc.is_in(table["policy"], value_set=pa.array(["", *FACE_POLICIES])))
    yield ~known, f"policy must be one of {', '.join(FACE_POLICIES)} or empty"
    yield reason_empty & empty("chip"), "a row without a reason must have a chip"
    yield ~reason_empty & ~empty("chip"), "a row with a reason must have no chip"
    yield from _iter_number_rules(table, reason_empty)


def _iter_number_rules(
    table: pa.Table, usable: np.ndarray[Any, np.dtype[np.bool_]]
) -> Iterable[tuple[np.ndarray[Any, np.dtype[np.bool_]], str]]:
    width, height, face, faces = (
        table[column].to_numpy() for column in ("width", "height", "face", "faces")
    )
    boxes, box_wrong = _lists(table["box"], 4)
    _, points_wrong = _lists(table["landmarks"], 10)
    scores = table["det_score"].to_numpy().astype(np.float32)
    no_score = _array(pc.is_null(table["det_score"]))
    no_box, no_points = _array(pc.is_null(table["box"])), _array(pc.is_null(table["landmarks"]))
    yield (width < 0) | (height < 0), "width and height must not be negative"
    yield (face < 0) | (faces < 0), "face and faces must not be negative"
    yield (face >= faces) & ~no_box, "face must be less than faces"
    yield box_wrong, "box must be null or four finite numbers"
    yield points_wrong, "landmarks must be null or ten finite numbers"
    yield (
        (no_box != no_points) | (no_box != no_score),
        "box, landmarks and det_score must be there or null together",
    )
    yield usable & no_box, "a row without a reason must have a box"
    with np.errstate(invalid="ignore"):
        ordered = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
        inside = (
            (boxes[:, :2] >= -_BOX_SLACK).all(axis=1)
            & (boxes[:, 2] <= width + _BOX_SLACK)
            & (boxes[:, 3] <= height + _BOX_SLACK)
        )
        score_inside = (scores >= 0) & (scores <= 1)
    yield ~no_box & ~ordered, "box must be x1 y1 x2 y2 with x1 < x2 and y1 < y2"
    yield ~no_box & ~inside, "box must lie inside the picture"
    yield ~no_score & ~score_inside, "det_score must lie in [0, 1]"


def _array(column: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(
        column.to_numpy(zero_copy_only=False)
        if isinstance(column, pa.Array)
        else column.to_numpy(),
        bool,
    )


def _lists(
    column: pa.ChunkedArray, length: int
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Return (float32 (n, length), NaN where null; bool (n,): wrong length, null inside or NaN)."""
    array = column.combine_chunks()
    values = np.full((len(array), length), np.nan, np.float32)
    lengths = np.asarray(pc.fill_null(pc.list_value_length(array), -1))
    right = lengths == length
    kept = array.filter(pa.array(right))
    values[right] = np.asarray(kept.flatten().to_numpy(zero_copy_only=False)).reshape(-1, length)
    wrong = (lengths >= 0) & ~(right & np.isfinite(values).all(axis=1))
    return values, wrong
