"""The figures of a protocol's result as rows of a plain table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

RATE_COLUMNS = ("figure", "target", "value", "95 % interval", "threshold", "errors of trials")
_PREFIX = "not supported: "


def list_rates(result: Mapping[str, Any]) -> list[list[str]]:
    """Return one row a figure of a result, in the order in which it holds them.

    Args:
        result: plain JSON values, as the results' `to_json` gives them.
    """
    return [_describe(where, rate) for where, rate in iter_rates(result)]


def iter_rates(value: Any, where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every rate of a result and the name of the part that it belongs to.

    Args:
        value: plain JSON values.
        where: the name of the part that `value` is.
    """
    if isinstance(value, Mapping):
        if {"name", "value", "target", "supported"} <= value.keys():
            yield where, value
        for name, entry in value.items():
            inside = name if name in ("verification", "identification") else ""
            if isinstance(entry, Mapping) and where == "" and name == "packs":
                for pack, figures in entry.items():
                    yield from iter_rates(figures, str(pack))
            elif isinstance(entry, Mapping) and name == "galleries":
                for gallery, figures in entry.items():
                    yield from iter_rates(figures, f"{where} {gallery}".strip())
            else:
                yield from iter_rates(entry, f"{where} {inside}".strip())
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from iter_rates(entry, where)


def _describe(where: str, rate: Mapping[str, Any]) -> list[str]:
    name = f"{where} {rate['name']}".strip()
    target = "" if rate["target"] is None else f"{rate['target']:g}"
    if not rate["supported"]:
        return [name, target, "not supported", "", "", rate["reason"].removeprefix(_PREFIX)]
    interval = rate["interval"]
    return [
        name,
        target,
        f"{rate['value']:.4f}",
        "-" if interval is None else f"{interval['low']:.4f} to {interval['high']:.4f}",
        "" if rate["threshold"] is None else f"{rate['threshold']:.4f}",
        _count(rate),
    ]


def _count(rate: Mapping[str, Any]) -> str:
    if rate["trials"] is None:
        return ""
    if rate["errors"] is None:
        return f"{rate['trials']:,}"
    return f"{rate['errors']:,} of {rate['trials']:,}"
