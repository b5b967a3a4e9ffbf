"""Scores as text: one line a method, one column a figure, mean and spread where there are several.

Columns that no method has a figure for are left out, and counts of what is false where all are 0.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]

COLUMNS = (
    ("wrong F1", "wrong", "f1"),
    ("flip F1", "flip", "f1"),
    ("outlier F1", "outlier", "f1"),
    ("right relabel", "relabel", "precision"),
    ("of all flips", "relabel", "of_flips"),
    ("merge prec.", "merge", "precision"),
    ("merge recall", "merge", "recall"),
    ("false merges", "merge", "false"),
    ("split prec.", "split", "precision"),
    ("split recall", "split", "recall"),
    ("false splits", "split", "false"),
    ("duplicates", "duplicate", "recall"),
    ("low quality", "low quality", "recall"),
    ("leaks", "leak", "recall"),
    ("clean lost", "clean", "lost_share"),
    ("hard lost", "clean", "hard_lost_share"),
    ("left wrong", "residual", "share"),
    ("noise error", "noise", "error"),
)
"""Title, group and name of each figure of `data_tools.score_fates.score_fates`."""

KINDS = ("flip", "outlier", "duplicate", "low quality", "leak", "merge", "split")


def format_methods(methods: Mapping[str, Sequence[Figures]]) -> str:
    """Return a table of methods, each with one result or several (one a seed).

    Several are shown as mean ± standard deviation; "-" where a figure cannot be said.

    Args:
        methods: name -> results of `score_fates`.
    """
    cells: dict[str, list[str]] = {"": list(methods)}
    for title, group, name in COLUMNS:
        column = [
            [float(v) for one in results if (v := one[group].get(name)) is not None]
            for results in methods.values()
        ]
        shown = any(map(any, column)) if name == "false" else any(column)
        if shown:
            form = {"error": "+.4f", "false": ".1f"}.get(name, ".4f")
            cells[title] = [_format_values(values, form) for values in column]
    widths = {title: max(map(len, (title, *column))) for title, column in cells.items()}
    lines = ["  ".join(f"{title:>{widths[title]}}" for title in cells)]
    lines += [
        "  ".join(f"{column[row]:>{widths[title]}}" for title, column in cells.items())
        for row in range(len(methods))
    ]
    return "\n".join(lines)


def format_kinds(figures: Figures) -> str:
    """Return a line a kind that occurs: counts, precision, recall and F1 with its interval."""
    lines = []
    for kind in KINDS:
        found = figures[kind]
        count = found["true"] if "true" in found else found["count"]
        hit = found["right"] if "right" in found else found["found"]
        if not count:
            continue
        rates = (f"{name} {_format_values(_listed(found[name]))}" for name in _RATES)
        ends = figures["intervals"].get(f"{kind} f1")
        interval = "" if ends is None else f" [{ends[0]:.4f}, {ends[1]:.4f}]"
        lines.append(f"{kind}: {hit:,} of {count:,}, {', '.join(rates)}{interval}")
    return "\n".join(lines)


_RATES = ("precision", "recall", "f1")


def _listed(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _format_values(values: Sequence[float], form: str = ".4f") -> str:
    if not values:
        return "-"
    text = f"{statistics.fmean(values):{form}}"
    if len(values) < 2:
        return text
    return f"{text} ± {statistics.stdev(values):{form.lstrip('+')}}"
