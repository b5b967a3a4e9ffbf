"""Verification packs (`lfw.bin`, `cfp_fp.bin`, …) of InsightFace: read without running a pickle.

A pack is a pickle of (2p encoded pictures, p flags whether pictures 2i and 2i + 1 are of one
person). A pickle can call any function, so the few that packs need are replaced by stand-ins
that only take apart what they are given; everything else in a file is refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError
from facerec.data.chip_files import MemoryFiles
from facerec.data.chip_set import ChipSet
from facerec.io import write_bytes

_MEMO = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


class PairPack(NamedTuple):
    """A verification pack.

    Attributes:
        images: 2p encoded pictures, those of a pair side by side.
        same: bool (p,), whether a pair is of one person.
    """

    images: list[bytes]
    same: NDArray[np.bool_]


class ChipPairs(NamedTuple):
    """Pairs of chips.

    Attributes:
        chips: m chips without labels.
        first: int64 (p,), positions in `chips`.
        second: int64 (p,).
        same: bool (p,).
    """

    chips: ChipSet
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]


def read_bin(path: Path) -> PairPack:
    """Return a verification pack, written by Python 2 or 3, its pictures bytes or uint8 arrays.

    Raises:
        InputError: missing, no pack, or a pickle that asks for anything but plain data.
    """
    try:
        data = path.read_bytes()
        _check_memo(data)
        value = _SafeUnpickler(io.BytesIO(data), encoding="bytes").load()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path") from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises nearly any kind
        raise InputError(
            f"{path} must be a verification pack, a pickle of pictures and flags, but is not "
            f"readable as such: {type(error).__name__}: {str(error)[:200]}"
        ) from None
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise InputError(
            f"{path} must hold two lists, pictures and flags, got {type(value).__name__}"
        )
    images, same = (_as_list(part) for part in value)
    if len(images) != 2 * len(same) or not same:
        raise InputError(
            f"{path} must hold two pictures for each flag, got {len(images)} pictures and "
            f"{len(same)} flags; fetch it again"
        )
    flags = [_as_flag(value, f"{path}, flag {row}") for row, value in enumerate(same)]
    encoded = [_as_bytes(image, f"{path}, picture {row}") for row, image in enumerate(images)]
    return PairPack(encoded, np.array(flags, bool))


def write_bin(path: Path, images: Sequence[bytes], same: Sequence[bool] | NDArray[Any]) -> None:
    """Write a verification pack all or nothing, as InsightFace reads it.

    Args:
        path: of the pack.
        images: 2p encoded pictures, those of a pair side by side.
        same: p flags.

    Raises:
        InputError: the numbers do not fit.
    """
    if len(images) != 2 * len(same) or not len(same):
        raise InputError(
            f"{path} needs two pictures for each flag, got {len(images)} pictures and "
            f"{len(same)} flags"
        )
    value = ([bytes(image) for image in images], [bool(flag) for flag in same])
    write_bytes(path, pickle.dumps(value, protocol=4))


def load_bin_pairs(path: Path) -> ChipPairs:
    """Return the pairs of a verification pack as unlabelled chips in memory.

    Raises:
        InputError: as `read_bin`.
    """
    pack = read_bin(path)
    count = len(pack.images)
    files = MemoryFiles(tuple(pack.images), path.name, np.arange(count))
    chips = ChipSet((), np.full(count, -1, np.int64), (), packed=files)
    return ChipPairs(chips, np.arange(0, count, 2), np.arange(1, count, 2), pack.same)


class _StandIn:
    """What a pickle gets in place of a function: it can be called and nothing else."""

    __slots__ = ("_act",)

    def __init__(self, act: Callable[..., object]) -> None:
        self._act = act

    def __call__(self, *arguments: object) -> object:
        return self._act(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes a function")


class _Kind:
    """A NumPy dtype by name alone."""

    __slots__ = ("name",)

    def __init__(self, name: object) -> None:
        self.name = name.decode("latin1") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        """Take no notice: byte order and flags mean nothing for one byte."""


class _Array:
    """A NumPy array: its dtype and its bytes, or its list where it holds objects."""

    __slots__ = ("data", "kind")

    def __init__(self) -> None:
        self.kind: object = None
        self.data: bytes | list[Any] = b""

    def __setstate__(self, state: object) -> None:
        """Take (version, shape, dtype, Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _Kind):
            raise pickle.UnpicklingError("an array's state is not as NumPy writes it")
        self.kind, content = state[2].name, state[4]
        self.data = content if isinstance(content, list) else _plain_bytes(content)


class _SafeUnpickler(pickle.Unpickler):
    """Builds lists, tuples, bytes, numbers and stand-ins of NumPy arrays; runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a global, or refuse it."""
        found = _STAND_INS.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a pack never needs")
        return _StandIn(found)


def _check_memo(data: bytes) -> None:
    """Refuse numbers of remembered objects for which a few bytes would ask for gigabytes."""
    for opcode, number, _ in pickletools.genops(data):
        if opcode.name in _MEMO and int(number or 0) > len(data):
            raise pickle.UnpicklingError(f"it asks for memory for {number} objects")


def _start_array(*_: object) -> _Array:
    return _Array()


def _build_kind(name: object, *_: object) -> _Kind:
    return _Kind(name)


def _build_array(data: object, kind: object, *_: object) -> _Array:
    if not isinstance(kind, _Kind):
        raise pickle.UnpicklingError("an array has no dtype")
    array = _Array()
    array.kind, array.data = kind.name, _plain_bytes(data)
    return array


def _build_scalar(kind: object, data: object) -> int:
    if not isinstance(kind, _Kind) or kind.name not in ("b1", "u1", "?", "bool"):
        raise pickle.UnpicklingError("a number is neither a flag nor a byte")
    content = _plain_bytes(data)
    if len(content) != 1:
        raise pickle.UnpicklingError("a flag is not one byte")
    return content[0]


def _encode(text: object, encoding: object) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("bytes are encoded in another way than latin1")
    return _plain_bytes(text)


def _empty_bytes(*arguments: object) -> bytes:
    if arguments:
        raise pickle.UnpicklingError("it calls bytes() with arguments")
    return b""


def _copy_bytes(*arguments: object) -> bytes:
    # A number as the argument would ask for that much memory.
    return _plain_bytes(arguments[0]) if arguments else b""


def _refuse_call(*_: object) -> object:
    raise pickle.UnpicklingError("it calls numpy.ndarray")


def _plain_bytes(value: object) -> bytes:
    if isinstance(value, str):  # protocols before 3 have no bytes: they are written as latin1 text
        return value.encode("latin1")
    if isinstance(value, bytes | bytearray | pickle.PickleBuffer):
        return bytes(value)
    raise pickle.UnpicklingError(f"bytes are expected, got {type(value).__name__}")


def _as_list(part: Any) -> list[Any]:
    """Return a list, or an array of flags as one."""
    if isinstance(part, _Array):
        return list(part.data)
    return list(part) if isinstance(part, tuple | list) else []


def _as_bytes(image: Any, name: str) -> bytes:
    if isinstance(image, _Array) and image.kind in ("u1", "uint8"):
        image = image.data
    if not isinstance(image, bytes | bytearray):
        raise InputError(
            f"{name} must be an encoded picture as bytes, got {type(image).__name__.strip('_')}"
        )
    return bytes(image)


def _as_flag(value: Any, name: str) -> bool:
    if not isinstance(value, int) or value not in (0, 1):
        raise InputError(f"{name} must be true or false, got {str(value)[:20]!r}")
    return bool(value)


_STAND_INS: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy.core.multiarray", "_reconstruct"): _start_array,
    ("numpy.core.multiarray", "scalar"): _build_scalar,
    ("numpy.core.numeric", "_frombuffer"): _build_array,
    ("numpy", "dtype"): _build_kind,
    ("numpy", "ndarray"): _refuse_call,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
    ("builtins", "bytearray"): _copy_bytes,
    ("__builtin__", "bytearray"): _copy_bytes,
}
