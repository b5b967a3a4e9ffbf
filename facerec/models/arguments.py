"""Checks of the arguments that all backbones share."""

from __future__ import annotations

from facerec.checks import check_whole


def check_sizes(embedding_dim: int, input_size: int) -> tuple[int, int]:
    """Return (embedding_dim, input_size), checked.

    Args:
        embedding_dim: d, in [2, 8192].
        input_size: side of the square input, pixels, in [32, 512].

    Raises:
        InputError: one of them is not a whole number or out of range.
    """
    dim = check_whole(embedding_dim, "embedding_dim", 2, 8192)
    return dim, check_whole(input_size, "input_size", 32, 512)
