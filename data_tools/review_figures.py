"""The review's figures as inline SVG: they follow the page's light or dark colours and greyscale.

Series differ by line style and every node carries its name and count, so nothing rests on colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from data_tools.centres import Array
from data_tools.review_flows import STATES, Flow
from data_tools.thresholds import BINS
from facerec.checks import InputError

_BARS = 100
_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 44
_NODE, _GAP, _LEAST = 12, 10, 15
_SANKEY_HEIGHT = 260.0


def draw_histogram(
    own: Sequence[int],
    threshold: float | None,
    densities: tuple[Array, Array] | None = None,
    *,
    name: str = "histogram",
) -> str:
    """Return the histogram of the rows' own scores with the threshold drawn, as SVG text.

    The height is the square root of the count: a hill of a hundred wrong rows can be seen beside
    one of a million right ones.

    Args:
        own: 400 counts over [-1, 1].
        threshold: a cosine, None where none was used.
        densities: of right and of wrong rows, float64 (400,) each, summing to about 1.
        name: makes the element's ids; letters, digits and dashes.

    Raises:
        InputError: other than 400 counts.
    """
    counts = np.asarray(own, np.float64)
    if counts.shape != (BINS,):
        raise InputError(f"a histogram of scores has {BINS} counts, got {counts.shape}")
    wide = counts.reshape(_BARS, -1).sum(axis=1)
    total = float(counts.sum())
    top = max(float(wide.max()), 1.0)
    parts = _draw_axes(top)
    bars = [
        f"M{_x(-1 + 2 * i / _BARS):.1f} {_y(0, top):.1f}V{_y(count, top):.1f}"
        f"H{_x(-1 + 2 * (i + 1) / _BARS):.1f}V{_y(0, top):.1f}Z"
        for i, count in enumerate(wide.tolist())
        if count
    ]
    parts.append(f'<path class="bar" d="{"".join(bars)}"/>')
    legend = ["bars: rows"]
    for kind, density in zip(("right", "wrong"), densities or (), strict=False):
        line = density.reshape(_BARS, -1).sum(axis=1) * total
        points = " ".join(
            f"{_x(-1 + 2 * (i + 0.5) / _BARS):.1f},{_y(value, top):.1f}"
            for i, value in enumerate(line.tolist())
        )
        parts.append(f'<polyline class="{kind}" points="{points}"/>')
        legend.append(f"{'solid' if kind == 'right' else 'dashed'} line: expected {kind} rows")
    said = "no threshold was used"
    if threshold is not None:
        x, said = _x(threshold), f"threshold {threshold:.3f}"
        side = "end" if threshold > 0.5 else "start"
        parts.append(f'<path class="cut" d="M{x:.1f} {_TOP - 8}V{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{_TOP - 14}" text-anchor="{side}">{said}</text>')
    text = (
        f"Histogram of {total:,.0f} rows by cosine to the centre of their own identity, from -1 "
        f"to 1; {said}. {'; '.join(legend)}."
    )
    return _wrap(name, "Scores against the own identity", text, parts, _WIDTH, _HEIGHT)


def draw_sankey(flows: Sequence[Flow], *, name: str = "sankey") -> str:
    """Return the rows' way through the rounds as SVG text, a column of states a round.

    Args:
        flows: one a round, in order; at least one.
        name: makes the element's ids; letters, digits and dashes.
    """
    columns = _sum_columns(flows)
    total = max(sum(columns[0].values()), 1)
    step = 190
    width = step * (len(columns) - 1) + _NODE + 170
    tops = [_place_nodes(column, total) for column in columns]
    height = 40 + max(
        max((y + _thick(column[state], total) for state, y in top.items()), default=0.0)
        for column, top in zip(columns, tops, strict=True)
    )
    parts = []
    for i, flow in enumerate(flows):
        left, right = dict(tops[i]), dict(tops[i + 1])
        for (before, after), count in flow.counts.items():
            thick = _SANKEY_HEIGHT * count / total
            parts.append(
                _draw_ribbon(i * step + _NODE, left[before], (i + 1) * step, right[after], thick)
            )
            left[before] += thick
            right[after] += thick
    for i, (column, top) in enumerate(zip(columns, tops, strict=True)):
        x = i * step
        title = "as given" if i == 0 else f"round {flows[i - 1].round}"
        parts.append(f'<text class="strong" x="{x}" y="14">{title}</text>')
        for state, count in column.items():
            y, thick = top[state], max(_thick(count, total), 1.5)
            kind = "out" if state in STATES[-3:] else "in"
            parts.append(
                f'<rect class="{kind}" x="{x}" y="{y:.1f}" width="{_NODE}" height="{thick:.1f}"/>'
            )
            middle = y + max(min(thick, _SANKEY_HEIGHT) / 2, 5) + 4
            parts.append(
                f'<text x="{x + _NODE + 5}" y="{middle:.1f}">{escape(state)} {count:,}</text>'
            )
    ends = ", ".join(f"{count:,} {state}" for state, count in columns[-1].items())
    text = f"{total:,} rows through {len(flows)} rounds; after the last: {ends}."
    return _wrap(name, "Decisions, round by round", text, parts, width, round(height))


def _sum_columns(flows: Sequence[Flow]) -> list[dict[str, int]]:
    """Return rows by state: before the first round, then after each, in the order of STATES."""
    columns = []
    for i in range(len(flows) + 1):
        sums = dict.fromkeys(STATES, 0)
        for pair, count in flows[max(i - 1, 0)].counts.items():
            sums[pair[min(i, 1)]] += count
        columns.append({state: count for state, count in sums.items() if count})
    return columns


def _place_nodes(column: dict[str, int], total: int) -> dict[str, float]:
    """Return the top of each node; none is so near the next that their names overlap."""
    tops, y = {}, 24.0
    for state, count in column.items():
        tops[state] = y
        y += max(_thick(count, total), _LEAST) + _GAP
    return tops


def _thick(count: int, total: int) -> float:
    return _SANKEY_HEIGHT * count / total


def _draw_ribbon(x1: float, y1: float, x2: float, y2: float, thick: float) -> str:
    """Return a band from (x1, y1) to (x2, y2), which are its upper corners."""
    thick, middle = max(thick, 1.0), (x1 + x2) / 2
    return (
        f'<path class="flow" d="M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} '
        f"{x2:.1f} {y2:.1f}V{y2 + thick:.1f}C{middle:.1f} {y2 + thick:.1f} {middle:.1f} "
        f'{y1 + thick:.1f} {x1:.1f} {y1 + thick:.1f}Z"/>'
    )


def _draw_axes(top: float) -> list[str]:
    parts = []
    for cosine in (-1.0, -0.5, 0.0, 0.5, 1.0):
        x = _x(cosine)
        parts.append(f'<path class="axis" d="M{x:.1f} {_HEIGHT - _BOTTOM}v5"/>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 24}" text-anchor="middle">{cosine:g}</text>')
    for share in (0.0, 0.1, 0.5, 1.0):
        count = float(f"{top * share:.1g}")
        if (share and not count) or count > top:
            continue
        y = _y(count, top)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{count:,.0f}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">'
        "cosine to the own identity's centre (rows, square-root scale)</text>"
    )
    return parts


def _x(cosine: float) -> float:
    return _LEFT + (cosine + 1) / 2 * (_WIDTH - _LEFT - _RIGHT)


def _y(count: float, top: float) -> float:
    share = np.sqrt(min(max(count, 0.0) / top, 1.0))
    return float(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM))


def _wrap(name: str, title: str, text: str, parts: Sequence[str], width: int, height: int) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-labelledby="{name}-title {name}-text"><title id="{name}-title">{escape(title)}'
        f'</title><desc id="{name}-text">{escape(text)}</desc>{"".join(parts)}</svg>'
    )
