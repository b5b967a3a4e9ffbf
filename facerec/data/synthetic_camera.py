"""What lies behind a synthetic face and what the camera does to it: blur, noise, JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.data.synthetic_people import Nuisance


def make_background(
    rng: np.random.Generator, width: int, height: int, plain: bool = False
) -> NDArray[np.uint8]:
    """Return an uint8 RGB background: soft coloured blobs, or a plain light wall."""
    if plain:
        tone = rng.uniform(185, 235) + rng.uniform(-6, 6, 3)
        wall = np.full((2, 2, 3), tone, np.float32) + rng.uniform(-5, 5, (2, 2, 1))
        soft = cv2.resize(wall.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        return np.clip(soft, 0, 255).astype(np.uint8)
    cells = int(rng.integers(2, 7))
    tone = rng.uniform(30, 215, 3)
    coarse = (
        tone + rng.uniform(-70, 70, (cells, cells, 1)) + rng.uniform(-30, 30, (cells, cells, 3))
    )
    how = cv2.INTER_CUBIC if rng.random() < 0.7 else cv2.INTER_LINEAR
    soft = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=how)
    return np.clip(soft, 0, 255).astype(np.uint8)


def lay_over(
    background: NDArray[np.uint8], image: NDArray[np.uint8], alpha: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return `image` over `background` by `alpha`; all uint8, one size or broadcast to it."""
    share = alpha.astype(np.uint16)[..., None]
    mixed = image * share + background * (255 - share) + 127
    over: NDArray[np.uint8] = (mixed // 255).astype(np.uint8)
    return over


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """Return an uint8 RGB picture as JPEG bytes, quality 1 to 100."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    assert done, "cv2 has a JPEG encoder"
    return data.tobytes()


def degrade(image: NDArray[np.uint8], nuisance: Nuisance, scale: float = 1.0) -> NDArray[np.uint8]:
    """Return a picture blurred, with noise, and through JPEG as `nuisance` says.

    Args:
        image: uint8 RGB (h, w, 3).
        nuisance: blur_px, noise_sigma, jpeg and seed are read.
        scale: factor on the blur, for faces larger or smaller than a chip's.
    """
    sigma = nuisance.blur_px * scale
    if sigma > 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)
    if nuisance.noise_sigma > 0.3:
        image = _add_noise(image, nuisance)
    if nuisance.jpeg:
        data = np.frombuffer(encode_jpeg(image, nuisance.jpeg), np.uint8)
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None, "cv2 reads what it wrote"
        image = np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
    return image


def _add_noise(image: NDArray[np.uint8], nuisance: Nuisance) -> NDArray[np.uint8]:
    rng = np.random.default_rng([nuisance.seed, 1])
    noise = rng.standard_normal((*image.shape[:2], 1), np.float32) * np.float32(
        nuisance.noise_sigma
    )
    noisy: NDArray[np.uint8] = np.clip(image + noise, 0, 255).astype(np.uint8)
    return noisy
