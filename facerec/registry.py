"""Names in a YAML file that pick a class: backbones, heads, data sources, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from facerec.checks import InputError, nearest

T = TypeVar("T", bound=Callable[..., Any])


class Registry(Generic[T]):
    """A dictionary with a decorator.

    Args:
        kind: what it holds, singular ("backbone"), for messages.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters a class or function under `name`, once."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return enter

    def get(self, name: str) -> T:
        """Return the entry called `name`.

        Raises:
            InputError: there is none; the message names the nearest and all others.
        """
        if name not in self._entries:
            raise InputError(
                f"unknown {self.kind} {name!r}; available: {', '.join(self.names())}"
                f"{nearest(name, self._entries)}"
            )
        return self._entries[name]

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._entries)


BACKBONES: Registry[Callable[..., Any]] = Registry("backbone")
HEADS: Registry[Callable[..., Any]] = Registry("head")
SOURCES: Registry[Callable[..., Any]] = Registry("data source")
