"""Error types and validators: each message says what, expected, got and what to do."""

from __future__ import annotations

import difflib
import importlib
import numbers
from collections.abc import Collection, Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # commands import this module for their --help: numpy waits until it is used
    import numpy as np
    from numpy.typing import NDArray

# Import name -> name to install, where they differ.
_INSTALL_NAMES = {
    "av": "av",
    "cv2": "opencv-python-headless",
    "faiss": "faiss-cpu",
    "qdrant_client": "qdrant-client",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


class InputError(ValueError):
    """Bad input or usage: commands print its one sentence and exit with code 2."""


class JobError(RuntimeError):
    """A job that failed through no fault of its input: its one sentence is printed, exit code 1."""


class MissingPackageError(InputError):
    """A package that this job needs is not installed."""


def require(module: str) -> ModuleType:
    """Import an optional package where it is used.

    Raises:
        MissingPackageError: the package is absent; the message names the pip command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.split(".")[0]
        if error.name is not None and error.name.split(".")[0] != top:
            raise
        name = _INSTALL_NAMES.get(top, top)
        raise MissingPackageError(
            f"this job needs the package {name!r}, which is not installed; run: pip install {name}"
        ) from error


def check_known(given: Iterable[str], known: Collection[str], what: str) -> None:
    """Raise InputError if one of `given` is not among `known`, naming the nearest.

    Args:
        given: names of arguments, from a recipe.
        known: names there are.
        what: whose they are, such as "head 'arcface'".
    """
    for name in given:
        if name not in known:
            raise InputError(
                f"{what} has no parameter {name!r}{nearest(name, known)}; "
                f"available: {', '.join(known) or 'none'}"
            )


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest choice, or an empty string."""
    close = difflib.get_close_matches(name, list(choices), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_one_of(value: str, name: str, choices: Collection[str]) -> str:
    """Return `value` if it is one of `choices`, else raise InputError naming the nearest."""
    if value not in choices:
        known = ", ".join(sorted(choices))
        raise InputError(
            f"{name} must be one of {known}, got {value!r}{nearest(str(value), choices)}"
        )
    return value


def check_whole(value: int, name: str, low: int, high: int) -> int:
    """Return `value` as an integer if it is whole and in [low, high], else raise InputError."""
    check_range(value, name, low, high)
    if isinstance(value, bool) or value != int(value):
        raise InputError(f"{name} must be a whole number in [{low}, {high}], got {value!r}")
    return int(value)


def check_range(value: float, name: str, low: float, high: float) -> float:
    """Return `value` if it is a number, low <= value <= high (NaN refused), else InputError."""
    is_number = isinstance(value, numbers.Real)
    if not is_number:  # settings come from YAML, where anything may stand
        raise InputError(f"{name} must be a number in [{low:g}, {high:g}], got {value!r}")
    if not low <= value <= high:
        raise InputError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}")
    return value


def check_image(image: NDArray[Any], name: str = "image") -> NDArray[np.uint8]:
    """Return `image` if it is uint8 RGB of shape (h, w, 3), else raise InputError."""
    import numpy as np

    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = getattr(image, "dtype", type(image).__name__)
        raise InputError(f"{name} must be a uint8 RGB array (h, w, 3), got {got}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"{name} must have shape (h, w, 3), got {image.shape}")
    return image


def check_chips(chips: NDArray[Any], name: str = "chips") -> NDArray[np.uint8]:
    """Return `chips` if they are aligned uint8 RGB (n, 112, 112, 3), else raise InputError."""
    import numpy as np

    if not isinstance(chips, np.ndarray) or chips.dtype != np.uint8:
        got = getattr(chips, "dtype", type(chips).__name__)
        raise InputError(f"{name} must be uint8 RGB (n, 112, 112, 3), got {got}")
    if chips.ndim != 4 or chips.shape[1:] != (112, 112, 3):
        raise InputError(f"{name} must have shape (n, 112, 112, 3), got {chips.shape}")
    return chips


def check_embeddings(
    vectors: NDArray[Any], name: str = "embeddings", dim: int | None = None
) -> NDArray[np.float32]:
    """Return `vectors` if they are finite float32 (n, d) of unit norm, else raise InputError.

    Args:
        vectors: the array to check.
        name: how the message calls it.
        dim: the expected d, any when None.
    """
    import numpy as np

    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32 or vectors.ndim != 2:
        got = f"{getattr(vectors, 'dtype', type(vectors).__name__)} {np.shape(vectors)}"
        raise InputError(f"{name} must be float32 (n, {dim or 'd'}), got {got}")
    if dim is not None and vectors.shape[1] != dim:
        raise InputError(
            f"{name} must have {dim} dimensions, got {vectors.shape[1]}; "
            "were they made by another model?"
        )
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise InputError(f"{name} must be finite, but row {row} holds NaN or infinity")
    norms = np.linalg.norm(vectors, axis=1)
    off = np.flatnonzero(np.abs(norms - 1) > 1e-3)
    if off.size:
        raise InputError(
            f"{name} must have unit norm, but row {off[0]} has norm {norms[off[0]]:.4g}; "
            "divide each row by its norm"
        )
    return vectors
