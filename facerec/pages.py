"""One self-contained HTML page: headings, paragraphs, tables and plots, readable by everyone.

The page loads nothing, runs no script, escapes every text given to it, follows the reader's light
or dark setting, scrolls wide tables on a phone, and carries a text alternative for every figure.
The plots of facerec.plots can be imported from here too: a report needs one import.
"""

from __future__ import annotations

import base64
import io
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facerec import __version__
from facerec.checks import InputError, check_image, require
from facerec.io import write_text
from facerec.plots import build_bars, build_histogram, build_line_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Page", "build_bars", "build_histogram", "build_line_plot", "format_cell"]

# Above this an SVG of very many points gives way to a PNG.
_MAX_SVG_BYTES = 400_000


class Page:
    """Collects blocks in order; `write` makes one HTML file of them.

    Args:
        title: the page's only first-level heading.
        subtitle: one line under it.
    """

    template = "page.html"
    """A file of templates/; a page of another look names its own."""

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._blocks: list[dict[str, Any]] = []
        self._anchors: set[str] = set()

    def heading(self, text: str, level: int = 2) -> Page:
        """Add a heading of level 2 (a section, listed in the contents) or 3."""
        if level not in (2, 3):
            raise InputError(f"heading level must be 2 or 3, got {level}; the title is level 1")
        self._blocks.append(
            {"kind": "heading", "text": text, "level": level, "anchor": self._anchor(text)}
        )
        return self

    def paragraph(self, text: str) -> Page:
        """Add a paragraph of plain text."""
        self._blocks.append({"kind": "paragraph", "text": text})
        return self

    def link(self, text: str, target: str) -> Page:
        """Add a line with one link: https, a place in the page, or a path beside the page."""
        scheme = re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:", target)
        if target.startswith("//") or (scheme and scheme.group().lower() != "https:"):
            raise InputError(f"a link must be https or a relative path, got {target!r}")
        self._blocks.append({"kind": "link", "text": text, "target": target})
        return self

    def key_values(self, values: Mapping[str, Any]) -> Page:
        """Add a list of names and values (numbers are formatted as in tables)."""
        pairs = [(name, format_cell(value)) for name, value in values.items()]
        self._blocks.append({"kind": "key_values", "pairs": pairs})
        return self

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str) -> Page:
        """Add a table; the first cell of each row is its heading.

        Args:
            columns: the heading of each column.
            rows: cells, formatted by `format_cell`; columns of numbers are aligned right.
            caption: what the table shows, one sentence.

        Raises:
            InputError: a row has another length than `columns`.
        """
        kept = [list(row) for row in rows]
        for number, row in enumerate(kept, start=1):
            if len(row) != len(columns):
                raise InputError(
                    f"table {caption!r} has {len(columns)} columns, "
                    f"but row {number} has {len(row)} cells"
                )
        numeric = [
            bool(kept) and all(row[i] is None or _is_number(row[i]) for row in kept)
            for i in range(len(columns))
        ]
        self._blocks.append(
            {
                "kind": "table",
                "columns": list(columns),
                "rows": [[format_cell(cell) for cell in row] for row in kept],
                "numeric": numeric,
                "caption": caption,
                "anchor": self._anchor("table " + caption),
            }
        )
        return self

    def figure(self, figure: Figure, alt: str, caption: str = "") -> Page:
        """Add a matplotlib figure, drawn now, as an embedded SVG (PNG when that is smaller work).

        Args:
            figure: from `build_line_plot` and its kin, or any matplotlib `Figure`.
            alt: what a reader who does not see it must know; not empty.
            caption: a line below it.
        """
        if not alt.strip():
            raise InputError("a figure needs a text alternative: say in `alt` what it shows")
        width, height = (round(inches * 96) for inches in figure.get_size_inches())
        self._blocks.append(
            {
                "kind": "figure",
                "source": _draw(figure),
                "alt": alt,
                "caption": caption,
                "width": width,
                "height": height,
            }
        )
        return self

    def pictures(
        self, images: Sequence[NDArray[np.uint8]], labels: Sequence[str], caption: str = ""
    ) -> Page:
        """Add small pictures with labels. Of real people only when the user asked for it.

        Args:
            images: uint8 RGB (h, w, 3) each.
            labels: the text below each, and its text alternative.
            caption: a line below all of them.
        """
        if len(images) != len(labels):
            raise InputError(f"{len(images)} pictures need as many labels, got {len(labels)}")
        pictures = [
            {"source": _encode_picture(image), "alt": label}
            for image, label in zip(images, labels, strict=True)
        ]
        self._blocks.append({"kind": "pictures", "pictures": pictures, "caption": caption})
        return self

    def html(self) -> str:
        """Return the whole page as text."""
        jinja2 = require("jinja2")
        loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
        environment = jinja2.Environment(
            loader=loader,
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        sections = [b for b in self._blocks if b["kind"] == "heading" and b["level"] == 2]
        text: str = environment.get_template(self.template).render(
            title=self.title,
            subtitle=self.subtitle,
            contents=sections,
            blocks=self._blocks,
            version=__version__,
        )
        return text

    def write(self, path: Path) -> Path:
        """Write the page, all or nothing, and return its path."""
        write_text(path, self.html())
        return path

    def _anchor(self, text: str) -> str:
        base = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60] or "section"
        name, number = base, 2
        while name in self._anchors:
            name, number = f"{base}-{number}", number + 1
        self._anchors.add(name)
        return name


def format_cell(value: Any) -> str:
    """Return a value as a reader wants it.

    None is a dash, a boolean yes or no, an integer has thousands separators, a float four
    significant digits; all else is `str(value)`.
    """
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}"
    if isinstance(value, numbers.Real):
        return f"{float(value):.4g}"
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def _draw(figure: Figure) -> str:
    """Return the figure as a data address: SVG, or PNG where the SVG would be large."""
    import matplotlib

    buffer = io.BytesIO()
    # A fixed salt and no date: the same figures give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "facerec", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    if buffer.tell() <= _MAX_SVG_BYTES:
        return _data_address("image/svg+xml", buffer.getvalue())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144, metadata={"Software": None})
    return _data_address("image/png", buffer.getvalue())


def _encode_picture(image: NDArray[np.uint8]) -> str:
    import cv2

    check_image(image, "picture")
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not done:
        raise InputError(f"a picture of shape {image.shape} cannot be written as JPEG")
    return _data_address("image/jpeg", data.tobytes())


def _data_address(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
