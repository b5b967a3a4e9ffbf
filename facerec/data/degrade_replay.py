"""Operations run in a row, written down, and run again from what was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from facerec.checks import InputError, check_image, check_known, check_one_of
from facerec.data.degrade_codec import H264, Jpeg
from facerec.data.degrade_operation import Image, Operation
from facerec.data.degrade_optics import Defocus, DownUp, Interlace, Motion
from facerec.data.degrade_print import PrintScan
from facerec.data.degrade_sensor import LowLight, SensorNoise

RECORD_VERSION = 1
_KINDS: tuple[type[Operation], ...] = (
    PrintScan,
    Defocus,
    Motion,
    DownUp,
    Interlace,
    LowLight,
    SensorNoise,
    H264,
    Jpeg,
)
OPERATIONS: Mapping[str, type[Operation]] = {kind.name: kind for kind in _KINDS}
"""Every operation by its name in records, in the order of the light."""


def build_record(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return what `replay` reads: plain dicts, lists, numbers and texts, as JSON takes them."""
    steps = [operation.record() for operation in operations]
    return {"version": RECORD_VERSION, "operations": steps}


def replay(chip: Image, record: Mapping[str, Any]) -> Image:
    """Return the picture that `Degradation.apply` made of this chip when it wrote `record`.

    Identical with the same versions of numpy, OpenCV and PyAV.

    Args:
        chip: uint8 RGB (h, w, 3), the very chip.
        record: also after a way through JSON.

    Raises:
        InputError: not a record of this version, or an operation that is unknown or malformed.
    """
    check_image(chip, "chip")
    if not record:
        return chip
    if record.get("version") != RECORD_VERSION:
        raise InputError(
            f"a record of degradation must have version {RECORD_VERSION}, "
            f"got {record.get('version')!r}; degrade the chip again"
        )
    steps = record.get("operations")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise InputError("a record of degradation must hold a list of operations; degrade again")
    return run_operations(chip, [_read_operation(step) for step in steps])


def run_operations(chip: Image, operations: Sequence[Operation]) -> Image:
    """Return a chip after operations in the order given; what `DownUp` shrinks stays small.

    All pictures of few pixels are enlarged after the last operation.
    """
    image = np.ascontiguousarray(chip)
    shrunk: list[tuple[DownUp, tuple[int, int]]] = []
    for operation in operations:
        if isinstance(operation, DownUp):
            shrunk.append((operation, (image.shape[1], image.shape[0])))
            image = operation.shrink(image)
        else:
            image = operation.apply(image)
    for operation, (width, height) in reversed(shrunk):
        image = operation.enlarge(image, width, height)
    return image


def _read_operation(step: Mapping[str, Any]) -> Operation:
    values = dict(step)
    kind = OPERATIONS[check_one_of(str(values.pop("name", "")), "name of operation", OPERATIONS)]
    known = [field.name for field in fields(kind)]
    check_known(values, known, f"operation {kind.name!r}")
    missing = [name for name in known if name not in values]
    if missing:
        raise InputError(f"the record of operation {kind.name!r} lacks {', '.join(missing)}")
    return kind(**values)
