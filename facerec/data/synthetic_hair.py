"""Painting of hair and beards: shapes with strands."""

from __future__ import annotations

import cv2
import numpy as np

from facerec.data.synthetic_canvas import Canvas, Floats, blend, smooth_curve, smooth_step
from facerec.data.synthetic_people import Identity


def _strands(canvas: Canvas, person: Identity, rng: np.random.Generator) -> Floats:
    """Return hair as float32 (3, s, s): strands run away from the parting, wavier with curl."""
    dx = canvas.x - np.float32(0.6 * person.parting)
    dy = canvas.y + np.float32(1.75)
    angle = np.arctan2(dx, dy + 0.35)
    radius = np.sqrt(dx * dx + dy * dy)
    wave = np.float32(0.10 * person.curl) * np.sin(radius * np.float32(9 + 8 * person.curl))
    across = ((angle + wave) / np.pi * 0.5 + 0.5) * 255
    along = np.clip(radius / 4, 0, 1) * 31
    texture = rng.standard_normal((32, 256)).astype(np.float32)
    texture = np.asarray(cv2.GaussianBlur(texture, (0, 0), 0.8), np.float32)
    streaks = cv2.remap(
        texture,
        across.astype(np.float32),
        along.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    sheen = canvas.spot(0.25 * person.parting, -1.35, 0.8, 0.16)
    tone = np.array(person.hair, np.float32)
    level = 0.92 + 0.42 * streaks + 0.28 * sheen
    return np.clip(tone[:, None, None] * level.astype(np.float32), 4, 250)


def _shell(person: Identity, volume: float) -> list[tuple[float, float]]:
    """Return the right half of the hair's outer edge from the crown down to the ear."""
    wide = person.face_width + 0.6 * volume
    return [
        (0.0, -1.72 - volume),
        (0.60 * wide, -1.58 - 0.9 * volume),
        (0.95 * wide, -1.15 - 0.3 * volume),
        (1.03 * wide, -0.55),
        (1.02 * wide, 0.0),
    ]


def paint_back_hair(
    canvas: Canvas, person: Identity, picture: Floats, rng: np.random.Generator
) -> Floats:
    """Paint the hair behind head and shoulders; return its mask, float32 (s, s)."""
    empty = np.zeros((canvas.size, canvas.size), np.float32)
    if person.hair_style not in ("long", "curly", "fringe"):
        return empty
    volume = person.hair_volume + (0.14 if person.hair_style == "curly" else 0.04)
    length = 0.7 if person.hair_style == "curly" else 1.2 + 1.0 * person.curl
    wide = person.face_width + 0.6 * volume
    right = [
        *_shell(person, volume),
        (1.08 * wide, 0.6 * length),
        (1.0 * wide, length),
        (0.5, length),
    ]
    left = [(-x, y) for x, y in right[::-1]]
    mask = canvas.fill(smooth_curve([*right, *left]), 0.03)
    blend(picture, mask, _strands(canvas, person, rng) * np.float32(0.8))
    return mask


def _hairline(canvas: Canvas, person: Identity, rng: np.random.Generator) -> Floats:
    """Return the y of the hairline, float32 (s, s), a little ragged."""
    across = canvas.x / np.float32(person.face_width)
    away = np.abs(across)
    burn = 0.15 if person.hair_style in ("long", "fringe") else -0.15
    line = person.hairline_y + (burn - person.hairline_y) * smooth_step(away, 0.70, 1.0)
    line = line + 0.10 * across**2
    if person.hair_style == "side":
        lower = smooth_step(across * np.float32(np.sign(person.parting) or 1), 0.2, -0.7)
        line = line + 0.32 * lower * (1 - smooth_step(away, 0.8, 1.0))
    elif person.hair_style == "fringe":
        line = line + np.float32(-0.62 - person.hairline_y) * (1 - smooth_step(away, 0.6, 0.95))
    elif person.hair_style == "receding":
        line = line - 0.34 * smooth_step(away, 0.1, 0.55) * (1 - smooth_step(away, 0.65, 0.95))
        line = line - 0.10
    elif person.hair_style == "bald":
        line = line - 1.2 * (1 - smooth_step(away, 0.75, 1.0))
    ragged = 0.02 + 0.05 * person.curl
    noisy: Floats = (line + ragged * canvas.noise(rng, 0.07)).astype(np.float32)
    return noisy


def paint_front_hair(
    canvas: Canvas, person: Identity, picture: Floats, rng: np.random.Generator
) -> Floats:
    """Paint the hair over forehead and temples; return its mask, float32 (s, s)."""
    thin = {"buzz": 0.02, "bald": 0.0, "receding": 0.04, "tied": 0.05, "curly": 0.26}
    volume = thin.get(person.hair_style, person.hair_volume)
    if person.hair_style == "curly":
        volume += 0.5 * person.hair_volume
    right = _shell(person, volume)
    right = [*right, (person.face_width * 0.97, 0.2)]
    left = [(-x, y) for x, y in right[:0:-1]]
    shell = canvas.fill(smooth_curve([*left, *right]), 0.02)
    line = _hairline(canvas, person, rng)
    soft = 0.10 if person.hair_style in ("buzz", "bald") else 0.05
    mask = shell * smooth_step(line - canvas.y, -soft, soft)
    if person.hair_style in ("buzz", "bald"):
        mask = mask * np.float32(0.75)
    mask = np.asarray(mask, np.float32)
    # The hair throws a soft shadow on the forehead.
    shadow = canvas.blur(mask, 0.08) * (1 - mask) * np.float32(0.45)
    blend(picture, shadow, np.array(person.skin, np.float32) * np.float32(0.45))
    blend(picture, mask, _strands(canvas, person, rng))
    return mask


def paint_beard(canvas: Canvas, person: Identity, skin: Floats, rng: np.random.Generator) -> None:
    """Paint the beard onto the skin, in place; the lips come later and lie over it."""
    if person.beard == "none":
        return
    mouth, chin = person.mouth_y, person.chin_y
    upper = canvas.spot(0, mouth - person.upper_lip - 0.07, person.mouth_half * 0.75, 0.055)
    moustache = np.clip(1.6 * upper, 0, 1)
    goatee = np.clip(1.5 * canvas.spot(0, chin - 0.12, 0.24, 0.20), 0, 1)
    jaw_line = smooth_step(canvas.y, mouth - 0.25, mouth + 0.15)
    sides = smooth_step(np.abs(canvas.x), 0.62, 0.85) * smooth_step(canvas.y, 0.2, 0.5)
    jaw = np.maximum(jaw_line, sides)
    area = {
        "stubble": np.maximum(0.6 * jaw, 0.6 * moustache),
        "moustache": moustache,
        "goatee": np.maximum(goatee, moustache),
        "full": np.maximum(jaw, moustache),
    }[person.beard]
    grain = np.clip(0.85 + 0.3 * canvas.noise(rng, 0.04), 0, 1.2)
    mask = np.clip(area * grain * np.float32(person.beard_density), 0, 0.95)
    blend(skin, mask.astype(np.float32), np.array(person.hair, np.float32) * np.float32(0.8))
