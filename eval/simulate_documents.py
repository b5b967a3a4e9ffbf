"""The document of a person: a portrait crop of one still, printed, scanned and compressed."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.simulate_cast import Still
from eval.simulate_crew import name_path
from eval.simulate_film import read_still
from eval.simulate_settings import SIMULATED, SimulationSettings
from eval.simulate_walks import build_rng
from facerec.checks import check_image
from facerec.data.align import ARCFACE_TEMPLATE, similarity_transform
from facerec.data.degrade_print import PrintScan
from facerec.data.images import encode_png
from facerec.io import write_bytes

PORTRAIT = (248, 320)
"""Width and height of a document's picture, pixels: 35 to 45 millimetres, as passports have it."""
_EYES_PX = 60.0
_EYES_AT = (0.5, 0.40)  # middle between the eyes, shares of the portrait
_WALL = 214.0
_FEATHER = 10.0
_PNG_HEADER = 33  # bytes of signature and IHDR


@dataclass(frozen=True)
class DocumentTask:
    """What a worker is told.

    Attributes:
        still: the picture.
        settings: of the simulation.
        path: PNG file to write.
    """

    still: Still
    settings: SimulationSettings
    path: Path


def make_document(task: DocumentTask) -> int:
    """Write one document; return 1, the number of documents.

    Raises:
        InputError: the still has gone or has changed since it was chosen.
        OSError: the disk is full or may not be written.
    """
    rng = build_rng(task.settings.seed, "document", task.still.person)
    severity = float(rng.uniform(*task.settings.print_severity_range))
    portrait = crop_portrait(read_still(task.still), task.still.landmarks)
    scan = PrintScan.draw(severity, rng).apply(portrait)
    data = mark_png(encode_png(scan), f"{SIMULATED} document, severity {severity:.3f}")
    with name_path(task.path):
        write_bytes(task.path, data)
    return 1


def crop_portrait(image: NDArray[np.uint8], landmarks: ArrayLike) -> NDArray[np.uint8]:
    """Return head and shoulders, upright, uint8 RGB (320, 248, 3); a light wall beyond the still.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: (5, 2) in its pixels.
    """
    check_image(image)
    width, height = PORTRAIT
    scale = _EYES_PX / float(ARCFACE_TEMPLATE[1, 0] - ARCFACE_TEMPLATE[0, 0])
    eyes = ARCFACE_TEMPLATE[:2].mean(axis=0)
    goal = (ARCFACE_TEMPLATE - eyes) * scale + np.array(_EYES_AT) * (width, height)
    matrix = similarity_transform(landmarks, goal)
    size = (width, height)
    moved = cv2.warpAffine(
        image, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    inside = cv2.warpAffine(np.full(image.shape[:2], 255, np.uint8), matrix, size)
    within = np.pad((inside > 127).astype(np.uint8), 1, mode="edge")
    share = np.ones((height, width), np.float32)
    if not within.all():
        depth = cv2.distanceTransform(within, cv2.DIST_L2, 5)[1:-1, 1:-1]
        share = np.asarray(np.clip(depth / _FEATHER, 0, 1), np.float32)
    mixed = moved * share[..., None] + np.float32(_WALL) * (1 - share[..., None])
    return np.asarray(np.rint(mixed), np.uint8)


def mark_png(data: bytes, comment: str) -> bytes:
    """Return a PNG file with a comment: a tEXt chunk behind its header (PNG, section 11.3.4.3)."""
    body = b"tEXt" + b"Comment\0" + comment.encode("latin-1", "replace")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:_PNG_HEADER] + chunk + data[_PNG_HEADER:]
