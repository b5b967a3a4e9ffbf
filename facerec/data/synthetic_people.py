"""People who do not exist: the parameters of an identity and of one picture of it.

Lengths are in units of a mean inter-eye distance; the origin lies between the eyes, x to the
viewer's right, y down, z towards the viewer. Angles are degrees.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_one_of

NUISANCE_KINDS = ("web", "document", "surveillance")
HAIR_STYLES = ("buzz", "short", "side", "fringe", "long", "curly", "receding", "tied", "bald")
_STYLE_SHARES = (0.10, 0.16, 0.16, 0.13, 0.15, 0.10, 0.07, 0.10, 0.03)
BEARDS = ("none", "stubble", "moustache", "goatee", "full")

# Light to dark, sRGB 0..255; between two neighbours the tone is mixed.
_SKIN_TONES = np.array(
    [
        [244, 214, 196],
        [236, 194, 167],
        [222, 172, 138],
        [199, 143, 106],
        [163, 112, 80],
        [124, 82, 58],
        [88, 58, 43],
    ],
    np.float64,
)
_HAIR_COLOURS = np.array(
    [[26, 22, 22], [52, 36, 28], [88, 58, 36], [140, 96, 52], [196, 160, 104], [138, 62, 34]],
    np.float64,
)
_IRIS_COLOURS = np.array(
    [[58, 38, 24], [92, 60, 34], [120, 96, 52], [86, 112, 74], [84, 116, 150], [112, 124, 132]],
    np.float64,
)

Colour = tuple[float, float, float]

_SHAPE_RANGES = {
    "eye_half": (0.455, 0.545),
    "eye_length": (0.38, 0.58),
    "eye_open": (0.12, 0.24),
    "eye_tilt": (-10, 11),
    "eye_depth": (0.0, 1.0),
    "iris_size": (0.085, 0.105),
    "face_width": (0.98, 1.22),
    "jaw_width": (0.66, 0.95),
    "chin_y": (1.58, 1.90),
    "chin_width": (0.24, 0.50),
    "hairline_y": (-1.18, -0.82),
    "cheek": (0.0, 1.0),
    "brow_y": (-0.46, -0.30),
    "brow_length": (0.50, 0.70),
    "brow_thickness": (0.04, 0.15),
    "brow_arch": (0.0, 0.13),
    "brow_tilt": (-12, 12),
    "brow_density": (0.45, 1.0),
    "nose_y": (0.44, 0.61),
    "nose_width": (0.18, 0.38),
    "nose_bridge": (0.07, 0.15),
    "nose_height": (0.20, 0.42),
    "mouth_y": (0.91, 1.12),
    "mouth_half": (0.34, 0.49),
    "upper_lip": (0.06, 0.15),
    "lower_lip": (0.10, 0.20),
    "lip_red": (0.0, 1.0),
    "cupid": (0.0, 1.0),
    "ear": (0.06, 0.20),
    "hair_volume": (0.06, 0.24),
    "curl": (0.0, 1.0),
    "parting": (-0.7, 0.7),
    "beard_density": (0.4, 0.9),
}
"""What `sample_identity` draws evenly: field -> least and greatest value."""


@dataclass(frozen=True)
class Identity:
    """What stays the same in every picture of one person; made by `sample_identity`."""

    name: str
    texture_seed: int
    eye_half: float
    eye_length: float
    eye_open: float
    eye_tilt: float
    eye_depth: float
    iris_size: float
    iris_colour: Colour
    face_width: float
    jaw_width: float
    chin_y: float
    chin_width: float
    hairline_y: float
    cheek: float
    brow_y: float
    brow_length: float
    brow_thickness: float
    brow_arch: float
    brow_tilt: float
    brow_density: float
    nose_y: float
    nose_width: float
    nose_bridge: float
    nose_height: float
    mouth_y: float
    mouth_half: float
    upper_lip: float
    lower_lip: float
    lip_red: float
    cupid: float
    ear: float
    skin: Colour
    hair: Colour
    hair_style: str
    hair_volume: float
    curl: float
    parting: float
    beard: str
    beard_density: float
    freckles: float
    moles: tuple[tuple[float, float, float], ...]
    scar: tuple[float, float, float, float] | None

    def geometry(self) -> NDArray[np.float64]:
        """Return the scalar shape parameters as float64 (k,), for measuring distances."""
        values = [getattr(self, field.name) for field in fields(self)]
        return np.array([v for v in values if isinstance(v, float)], np.float64)


@dataclass(frozen=True)
class Nuisance:
    """What changes from picture to picture.

    Attributes:
        yaw: degrees, positive turns the face to the viewer's right.
        pitch: degrees, positive looks up; a camera above sees it negative.
        roll: degrees in the picture, positive turns clockwise.
        light_x: where the lamp is, -1 viewer's left to 1 right.
        light_y: -1 above to 1 below.
        light: share of directed light in [0, 1]; the rest is even.
        exposure: factor on brightness.
        warmth: colour temperature, -1 blue to 1 orange.
        smile: -0.5 to 1.
        mouth_open: 0 to 1.
        eye_closure: 0 open to 1 shut.
        gaze: -1 to 1, where the eyes look sideways.
        age: 0 as is, 1 a lifetime older: wrinkles and grey hair.
        glasses: 0 none, else the frame's darkness in (0, 1].
        hair_change: shift of hair colour by dye or bleach, -1 darker to 1 lighter.
        clothes: colour seed of the clothes and the background.
        blur_px: Gaussian sigma at chip scale, pixels.
        noise_sigma: sensor noise, grey levels.
        jpeg: quality 1 to 100, 0 none.
        shift: alignment error of a chip, share of the inter-eye distance.
        seed: of noise and background.
    """

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    light_x: float = 0.0
    light_y: float = -0.4
    light: float = 0.4
    exposure: float = 1.0
    warmth: float = 0.0
    smile: float = 0.0
    mouth_open: float = 0.0
    eye_closure: float = 0.0
    gaze: float = 0.0
    age: float = 0.0
    glasses: float = 0.0
    hair_change: float = 0.0
    clothes: int = 0
    blur_px: float = 0.0
    noise_sigma: float = 0.0
    jpeg: int = 0
    shift: float = 0.0
    seed: int = 0


def _mix(colours: NDArray[np.float64], where: float) -> NDArray[np.float64]:
    """Return the colour at `where` in [0, 1] along a list of colours."""
    place = where * (len(colours) - 1)
    low = min(int(place), len(colours) - 2)
    mixed: NDArray[np.float64] = colours[low] + (place - low) * (colours[low + 1] - colours[low])
    return mixed


def _colour(values: NDArray[np.float64]) -> Colour:
    r, g, b = (float(v) for v in np.clip(values, 8, 250))
    return r, g, b


def sample_identity(seed: int, index: int) -> Identity:
    """Return person `index` of world `seed`: the same arguments give the same person.

    About thirty shape parameters are drawn independently over wide ranges, so that two people
    agree in a few of them but never in all.

    Raises:
        InputError: a negative seed or index.
    """
    if seed < 0 or index < 0:
        raise InputError(f"seed and index must not be negative, got {seed} and {index}")
    rng = np.random.default_rng([seed, index, 7919])

    def pick(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    tone = pick(0, 1)
    skin = _mix(_SKIN_TONES, tone) * rng.uniform(0.96, 1.04, 3)
    # Dark skin goes with dark hair and eyes, as in life.
    lightness = (1 - tone) ** 1.2
    hair = _mix(_HAIR_COLOURS, pick(0, 0.15 + 0.85 * lightness)) * rng.uniform(0.85, 1.15, 3)
    iris = _mix(_IRIS_COLOURS, pick(0, 0.2 + 0.8 * lightness))
    moles = tuple(
        (pick(-0.8, 0.8), pick(-0.8, 1.6), pick(0.018, 0.032))
        for _ in range(int(rng.integers(0, 4)))
    )
    scar = (pick(-0.7, 0.7), pick(-0.7, 1.3), pick(0, 180), pick(0.2, 0.45))
    style = str(rng.choice(HAIR_STYLES, p=_STYLE_SHARES))
    bearded = rng.random() < 0.55 and style not in ("long", "fringe", "tied")
    shape = {name: pick(*limits) for name, limits in _SHAPE_RANGES.items()}
    return Identity(
        name=f"p{seed:04d}-{index:05d}",
        texture_seed=int(rng.integers(1 << 31)),
        iris_colour=_colour(iris),
        skin=_colour(skin),
        hair=_colour(hair),
        hair_style=style,
        beard=str(rng.choice(BEARDS[1:])) if bearded else "none",
        freckles=pick(0.3, 1.0) if rng.random() < 0.25 else 0.0,
        moles=moles,
        scar=scar if rng.random() < 0.15 else None,
        **shape,
    )


def sample_nuisance(rng: np.random.Generator, kind: str = "web") -> Nuisance:
    """Return the parameters of one picture.

    Args:
        rng: drawn from; the caller seeds it.
        kind: `web` (any pose, light, expression), `document` (frontal, even light, neutral) or
            `surveillance` (from above, blurred, noisy, dim).

    Raises:
        InputError: unknown kind.
    """
    check_one_of(kind, "kind of picture", NUISANCE_KINDS)
    common = {"clothes": int(rng.integers(1 << 30)), "seed": int(rng.integers(1 << 30))}
    if kind == "document":
        return _sample_document(rng, common)
    watched = kind == "surveillance"
    closed = rng.random() < 0.06
    return Nuisance(
        yaw=float(np.clip(rng.normal(0, 12), -34, 34)),
        pitch=float(np.clip(rng.normal(-11 if watched else 0, 6 if watched else 8), -24, 18)),
        roll=float(np.clip(rng.normal(0, 4 if watched else 8), -25, 25)),
        light_x=float(rng.uniform(-1, 1)),
        light_y=float(rng.uniform(-0.9, 0.0 if watched else 0.3)),
        light=float(rng.uniform(0.2, 0.6)),
        exposure=float(np.exp(rng.normal(-0.2 if watched else -0.05, 0.13))),
        warmth=float(np.clip(rng.normal(0, 0.4), -1, 1)),
        smile=float(rng.uniform(-0.3, 0.3) if watched else rng.uniform(-0.3, 0.9)),
        mouth_open=float(np.clip(rng.normal(0, 0.2 if watched else 0.35), 0, 1)),
        eye_closure=float(rng.uniform(0.6, 1.0) if closed else rng.uniform(0, 0.3)),
        gaze=float(np.clip(rng.normal(0, 0.4), -1, 1)),
        age=float(rng.uniform(0, 0.5)),
        glasses=float(rng.uniform(0.3, 1.0)) if rng.random() < 0.12 else 0.0,
        hair_change=float(np.clip(rng.normal(0, 0.22), -1, 1)),
        blur_px=float(rng.uniform(0.5, 1.8) if watched else rng.gamma(1.5, 0.3)),
        noise_sigma=float(rng.uniform(3, 10) if watched else rng.gamma(1.5, 1.8)),
        jpeg=int(rng.integers(45, 80) if watched else rng.integers(60, 96)),
        shift=float(rng.uniform(0, 0.03)),
        **common,
    )


def _sample_document(rng: np.random.Generator, common: dict[str, int]) -> Nuisance:
    """Return a passport-like picture: small deviations only, then print and scan."""
    return Nuisance(
        yaw=float(rng.normal(0, 2)),
        pitch=float(rng.normal(0, 2)),
        roll=float(rng.normal(0, 1)),
        light_x=float(rng.uniform(-0.2, 0.2)),
        light_y=float(rng.uniform(-0.4, -0.1)),
        light=float(rng.uniform(0.15, 0.3)),
        exposure=float(rng.uniform(0.92, 1.1)),
        warmth=float(rng.normal(0, 0.15)),
        smile=float(rng.uniform(-0.1, 0.15)),
        eye_closure=float(rng.uniform(0, 0.1)),
        age=float(rng.uniform(0, 0.3)),
        hair_change=float(np.clip(rng.normal(0, 0.2), -1, 1)),
        blur_px=float(rng.uniform(0.3, 0.8)),
        noise_sigma=float(rng.uniform(1, 4)),
        jpeg=int(rng.integers(75, 95)),
        shift=float(rng.uniform(0, 0.02)),
        **common,
    )
