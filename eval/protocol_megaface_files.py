"""The files of a MegaFace-style protocol: features, lists of pictures, lists of noise.

Layout: `facescrub_features_list.json` and `megaface_features_list.json_N_1`
(`eval.protocol_files.read_path_list`); one feature matrix a picture, FOLDER/PATH_ALGORITHM.bin;
`facescrub_noises.txt`, a line a file name; `megaface_noises.txt`, a line a path of three parts,
perhaps behind a number and a tab; lines that begin with # are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.protocol_files import read_lines, read_matrix
from facerec.checks import InputError
from facerec.progress import Progress


def read_noise_list(path: Path, parts: int) -> frozenset[str]:
    """Return the pictures that a noise list names, by the last `parts` parts of their paths.

    Args:
        path: of the list.
        parts: 1 for FaceScrub, 3 for MegaFace.

    Raises:
        InputError: missing, or no text.
    """
    return frozenset(_last_parts(line.split("\t")[-1], parts) for line in read_lines(path))


def find_noise(names: Sequence[str], noise: frozenset[str], parts: int) -> NDArray[np.bool_]:
    """Return which pictures a noise list names, bool (n,).

    Args:
        names: paths.
        noise: from `read_noise_list`.
        parts: as there.

    Raises:
        InputError: the list names pictures, but none of these: it is of another set.
    """
    found = np.array([_last_parts(name, parts) in noise for name in names], np.bool_)
    if noise and not found.any():
        raise InputError(
            f"none of the {len(noise)} pictures of the noise list is among {len(names)} pictures "
            f"(such as {min(noise)!r} and {names[0]!r}); is it the list of another set?"
        )
    return found


def read_picture_features(
    folder: Path, names: Sequence[str], ending: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return unit vectors and norms of features that lie in a file each; zero where none lies.

    Args:
        folder: of the features.
        names: paths below it, without the ending.
        ending: such as `_net.bin`.

    Raises:
        InputError: no file at all, one that is no feature matrix, or dimensions that differ.
    """
    vectors: NDArray[np.float32] | None = None
    with Progress("read features", len(names), "pictures") as progress:
        for row, name in enumerate(names):
            path = folder / f"{name}{ending}"
            if path.is_file():
                feature = read_matrix(path).ravel()
                if vectors is None:
                    vectors = np.zeros((len(names), feature.size), np.float32)
                if feature.size != vectors.shape[1]:
                    raise InputError(
                        f"{path} has {feature.size} dimensions, others {vectors.shape[1]}; were "
                        "they made by two models?"
                    )
                vectors[row] = feature
            progress.advance()
    if vectors is None:
        raise InputError(f"{folder} holds no feature {names[0]}{ending}, nor any other")
    norms = np.linalg.norm(vectors, axis=1)
    np.divide(vectors, norms[:, None], out=vectors, where=norms[:, None] > 0)
    return vectors, norms.astype(np.float32)


def _last_parts(path: str, parts: int) -> str:
    return "/".join(path.strip().split("/")[-parts:])
