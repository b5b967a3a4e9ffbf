"""What every degradation is: frozen parameters that change a picture the same way each time."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from facerec.checks import InputError, check_range

Image = NDArray[np.uint8]

SEEDS = 2**32
"""Seeds of noise lie in [0, SEEDS)."""


@dataclass(frozen=True)
class Operation:
    """One degradation with its parameters, all of them plain numbers, truth values and names.

    Whatever is random about it was drawn before, or follows from its `seed`: the same operation
    makes the same picture of the same chip.

    Raises:
        InputError: a parameter out of its limits or of a wrong type.
    """

    name: ClassVar[str]
    limits: ClassVar[Mapping[str, tuple[float, float]]] = {}
    """Least and greatest value of each number."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, label = getattr(self, field.name), f"{self.name}.{field.name}"
            if field.type == "int" and not isinstance(value, numbers.Integral):
                raise InputError(f"{label} must be a whole number, got {value!r}")
            if field.type == "bool" and not isinstance(value, bool):
                raise InputError(f"{label} must be true or false, got {value!r}")
            if field.name in self.limits:
                check_range(value, label, *self.limits[field.name])

    def apply(self, chip: Image) -> Image:
        """Return the degraded picture, uint8 RGB of the shape of `chip`, which stays as it is."""
        raise NotImplementedError

    def record(self) -> dict[str, Any]:
        """Return name and parameters as JSON takes them."""
        return {"name": self.name, **{f.name: getattr(self, f.name) for f in fields(self)}}


def draw_seed(rng: np.random.Generator) -> int:
    """Return a seed in [0, SEEDS)."""
    return int(rng.integers(SEEDS))
