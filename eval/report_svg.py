"""A matplotlib figure as an SVG element of the page itself: it follows light and dark."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# facerec.plots draws in these; the page's style says what each is in light and in dark.
_VARIABLES = {
    "#000000": "--ink",
    "#ffffff": "--paper",
    "#d0d0d0": "--line",
    "#cccccc": "--line",
    "#0072b2": "--series-1",
    "#d55e00": "--series-2",
    "#009e73": "--series-4",
    "#cc79a7": "--series-5",
    "#e69f00": "--series-6",
}
_COLOUR = re.compile("|".join(_VARIABLES))
_REFERENCE = re.compile(r"url\(#([^)]+)\)")


def draw_inline(figure: Figure, anchor: str, title: str, description: str) -> str:
    """Return a figure as one `<svg>` element for HTML.

    Its colours are the page's, its identifiers begin with `anchor`, and it has a title and a
    description; comments, metadata and style sheets of matplotlib are left out.

    Args:
        figure: any matplotlib figure, drawn on no ground of its own.
        anchor: an identifier that nothing else in the page begins with.
        title: what it is.
        description: what a reader who does not see it must know.
    """
    import matplotlib

    buffer = io.BytesIO()
    # A fixed salt and no date: the same figures give the same text.
    with matplotlib.rc_context({"svg.hashsalt": "facerec", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    # The parser leaves comments out: matplotlib repeats every label in one.
    drawn = ElementTree.fromstring(buffer.getvalue())
    root = ElementTree.Element(
        "svg",
        {
            "viewBox": drawn.attrib["viewBox"],
            "role": "img",
            "aria-labelledby": f"{anchor}-title {anchor}-desc",
            "stroke-linejoin": "round",
            "stroke-linecap": "butt",
        },
    )
    ElementTree.SubElement(root, "title", {"id": f"{anchor}-title"}).text = title
    ElementTree.SubElement(root, "desc", {"id": f"{anchor}-desc"}).text = description
    root.extend(
        _adopt(child, anchor) for child in drawn if _local(child.tag) not in ("metadata", "style")
    )
    return ElementTree.tostring(root, encoding="unicode")


def _adopt(element: ElementTree.Element, anchor: str) -> ElementTree.Element:
    """Return the element without name spaces, its identifiers and references under `anchor`."""
    made = ElementTree.Element(_local(element.tag))
    for key, value in element.attrib.items():
        name = _local(key)
        if name == "id":
            value = f"{anchor}-{value}"
        elif name == "href":
            value = f"#{anchor}-{value.removeprefix('#')}"
        elif name == "d":
            value = " ".join(value.split())
        else:
            value = _REFERENCE.sub(rf"url(#{anchor}-\1)", value)
            value = _COLOUR.sub(lambda found: f"var({_VARIABLES[found.group()]})", value)
        # A presentation attribute takes no variable, a style does.
        if name in ("fill", "stroke") and "var(" in value:
            made.set("style", f"{made.get('style', '')}{name}: {value};")
        else:
            made.set(name, value if name != "style" else f"{made.get('style', '')}{value}")
    made.extend(_adopt(child, anchor) for child in element if _local(child.tag) != "style")
    return made


def _local(name: str) -> str:
    return name.rpartition("}")[2]
