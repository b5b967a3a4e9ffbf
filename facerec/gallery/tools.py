"""The detector and the recogniser that a gallery was made with."""

from __future__ import annotations

from pathlib import Path

from facerec.checks import InputError
from facerec.detection import build_detector
from facerec.embedder import Embedder
from facerec.gallery.gallery import Gallery
from facerec.models.store import ModelStore
from facerec.structures import Detector


def build_tools(
    gallery: Gallery,
    model: str = "",
    detector: str = "",
    runtime: str = "auto",
    second_look: bool = True,
) -> tuple[Detector, Embedder]:
    """Return detector and embedder, those that the gallery records unless others are named.

    Args:
        gallery: open.
        model: store name, artefact folder or file; must be the gallery's recogniser.
        detector: as `build_detector` takes it.
        runtime: as `Embedder` takes it.
        second_look: as `build_detector` takes it; False for video.

    Raises:
        InputError: neither named nor recorded, not there any more, or another model.
    """
    spec = detector or gallery.store.read_setting("detector")
    if not spec:
        raise InputError("the gallery records no detector; give one with --detector")
    name = model or gallery.store.read_setting("model")
    if not name:
        raise InputError("the gallery records no model file; give it with --model")
    if not detector:
        _check_there(spec, "detector")
    if not model:
        _check_there(name, "model")
    flip = gallery.store.read_setting("flip") == "yes"
    embedder = Embedder(name, runtime=runtime, flip=flip)
    gallery.check_model(embedder.model_hash)
    return build_detector(spec, second_look=second_look), embedder


def _check_there(spec: str, what: str) -> None:
    """Refuse a recorded file that has gone; a recorded path is absolute, see `keep_spec`."""
    path = Path(spec.partition(":")[2] or spec)
    if path.is_absolute() and not path.exists():
        raise InputError(
            f"the gallery's {what} {path} is not there any more; say where it is with --{what}"
        )


def keep_spec(spec: str) -> str:
    """Return a model or detector specification that means the same from any working folder."""
    kind, colon, rest = spec.partition(":")
    if colon and kind in ("annotations", "insightface"):
        return f"{kind}:{Path(rest).expanduser().resolve()}"
    if spec and spec not in ModelStore().names() and Path(spec).expanduser().exists():
        return str(Path(spec).expanduser().resolve())
    return spec
