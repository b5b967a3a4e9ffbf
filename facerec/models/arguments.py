"""Checks of the arguments that all backbones share."""

from __future__ import annotations

from facerec.checks import InputError, check_range


def check_count(value: int, name: str, low: int, high: int) -> int:
    """Return `value` if it is a whole number in [low, high], else raise InputError."""
    check_range(value, name, low, high)
    if isinstance(value, bool) or value != int(value):
        raise InputError(f"{name} must be a whole number in [{low}, {high}], got {value!r}")
    return int(value)


def check_sizes(embedding_dim: int, input_size: int) -> tuple[int, int]:
    """Return (embedding_dim, input_size), checked.

    Args:
        embedding_dim: d, in [2, 8192].
        input_size: side of the square input, pixels, in [32, 512].

    Raises:
        InputError: one of them is not a whole number or out of range.
    """
    dim = check_count(embedding_dim, "embedding_dim", 2, 8192)
    return dim, check_count(input_size, "input_size", 32, 512)
