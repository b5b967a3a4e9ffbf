"""Strict configuration: a YAML file on a base file, dotted overrides, unknown keys are errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from facerec.checks import InputError, nearest
from facerec.io import write_text

S = TypeVar("S", bound="Section")


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as YAML 1.2 does; PyYAML on its own makes it a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


class Section(BaseModel):
    """A part of a configuration: frozen, and no key that is not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def load_config(schema: type[S], path: Path, overrides: Sequence[str] = ()) -> S:
    """Return the settings in `path` as `schema`.

    A key `base: other.yaml` (relative to the file) is loaded first and overlaid.

    Args:
        schema: a Section.
        path: a YAML file.
        overrides: `dotted.key=value`, the value read as YAML.

    Raises:
        InputError: missing file, unknown key (with the nearest valid one), value of a wrong type.
    """
    values = _read_layers(path, ())
    for override in overrides:
        _apply_override(values, override)
    return build_config(schema, values, str(path))


def build_config(schema: type[S], values: dict[str, Any], origin: str) -> S:
    """Return `values` validated as `schema`; `origin` names them in messages."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise InputError(_describe(error, schema, origin)) from None


def save_config(config: Section, path: Path) -> None:
    """Write the resolved settings as YAML, all or nothing."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _read_layers(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise InputError(f"{path} is its own base; break the circle of `base:` keys")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give the path of a YAML recipe") from None
    except (IsADirectoryError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} must be a YAML file: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold keys and values, got {type(values).__name__}")
    base = values.pop("base", None)
    if base is None:
        return values
    return _overlay(_read_layers(path.parent / str(base), (*seen, path)), values)


def _overlay(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _overlay(merged[key], value)
        else:
            merged[key] = value
    return merged


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"an override must read key=value, got {override!r}")
    *parents, leaf = key.split(".")
    for parent in parents:
        if not isinstance(values.setdefault(parent, {}), dict):
            raise InputError(f"override {override!r}: {parent!r} is a value, not a section")
        values = values[parent]
    try:
        values[leaf] = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise InputError(f"override {override!r}: the value is not readable as YAML") from None


def _describe(error: ValidationError, schema: type[BaseModel], origin: str) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(place) or "the whole file"
    if first["type"] == "extra_forbidden":
        hint = nearest(place[-1], _fields_at(schema, place[:-1]))
        return f"{origin}: unknown key {key!r}{hint or '; see configs/base.yaml for all keys'}"
    return f"{origin}: {key}: {first['msg']}, got {first.get('input')!r}"


def _fields_at(schema: type[BaseModel], place: Sequence[str]) -> list[str]:
    for part in place:
        field = schema.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            return []
        if not issubclass(field.annotation, BaseModel):
            return []
        schema = field.annotation
    return list(schema.model_fields)
