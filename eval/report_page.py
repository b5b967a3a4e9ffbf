"""The page that evaluations are shown on: `facerec.pages.Page` with plots of its own and folds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from eval.report_svg import draw_inline
from facerec.checks import InputError, require
from facerec.pages import Page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIMULATED = "(simulated)"


class ReportPage(Page):
    """A page whose plots follow light and dark, and whose headings say what is simulated.

    Args:
        title: the page's only first-level heading.
        subtitle: one line under it.
        simulated: append the word to the title and to every heading.
    """

    template = "evaluation.html"

    def __init__(self, title: str, subtitle: str = "", *, simulated: bool = False) -> None:
        self._suffix = f" {SIMULATED}" if simulated else ""
        super().__init__(title + self._suffix, subtitle)
        self._anchors.add("content")  # where the link over the contents leads

    def heading(self, text: str, level: int = 2) -> ReportPage:
        """Add a heading of level 2 (a section, listed in the contents) or 3."""
        super().heading(text + self._suffix, level)
        return self

    def plot(self, figure: Figure, title: str, description: str, caption: str = "") -> ReportPage:
        """Add a matplotlib figure as an SVG element of the page.

        Args:
            figure: from `eval.report_plots`.
            title: what it is; not empty.
            description: what a reader who does not see it must know; not empty.
            caption: a line below it.
        """
        if not title.strip() or not description.strip():
            raise InputError("a plot needs a title and a description: say what it shows")
        anchor = self._anchor("plot " + title)
        svg = require("markupsafe").Markup(draw_inline(figure, anchor, title, description))
        self._blocks.append({"kind": "plot", "svg": svg, "caption": caption})
        return self

    @contextlib.contextmanager
    def details(self, summary: str) -> Iterator[ReportPage]:
        """Fold what is added inside; a reader opens it by mouse, touch or keyboard."""
        self._blocks.append({"kind": "details", "text": summary})
        yield self
        self._blocks.append({"kind": "end of details"})
