"""Figures of matplotlib as SVG that is part of a page: small, with text as text, and in the page's colours.

The page decides the colours, so that they go with a light and with a dark theme: black becomes the colour of the text
around the figure, the others of PAGE_COLORS a variable of the style sheet. Figures are made within `drawing`.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

TAB = [to_hex(color) for color in mpl.colormaps["tab10"].colors]  # type: ignore[attr-defined]
PAGE_COLORS = {
    "#000000": "currentColor",
    "#ffffff": "var(--paper)",
    "#808080": "var(--muted)",
    "#b0b0b0": "var(--rule)",
    "#cccccc": "var(--rule)",
    **{color: f"var(--c{number})" for number, color in enumerate(TAB)},
}
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: smaller than outlines, and can be searched and copied
    "text.parse_math": False,  # a class may be named $x$
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "grid.color": "#b0b0b0",
    "grid.linewidth": 0.5,
}
MOST_POINTS = 300  # of a scatter plot; more become a picture within the figure
MOST_LINES = 40
PIXELS_PER_POINT = 4 / 3
DROPPED = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>"
    r"| xmlns(?::\w+)?=\"[^\"]*\"| version=\"1.1\"| id=\"(?:figure|axes|patch|matplotlib|xtick|ytick|line2d|text"
    r"|legend)[\w.]*\"",
    re.DOTALL,
)
FONT = re.compile(r"font: (?:(\w+) )?([\d.]+px) [^;\"]*")
PLACE = re.compile(r" (?:d|x|y|width|height|transform)=\"[^\"]*\"")
COLOR = re.compile("|".join(PAGE_COLORS))


@contextmanager
def drawing() -> Iterator[None]:
    """Draw the figures of the block in the report's style, without warnings of characters that a font has not."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def svg(figure: Figure, name: str) -> Markup:
    """Return a figure as an <svg> element. name: different for each figure of a page, since ids are made of it."""
    for axes in figure.axes:
        _simplify(axes)
    file = io.StringIO()
    with drawing(), mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", dpi=150, metadata={"Date": None})
    text = DROPPED.sub("", file.getvalue()).replace("xlink:href", "href")
    head, _, body = text[text.index("<svg") :].partition(">")
    width, _height = (float(number) for number in re.findall(r"(?:width|height)=\"([\d.]+)pt\"", head))
    (box,) = re.findall(r"viewBox=\"[^\"]*\"", head)
    body = COLOR.sub(lambda found: PAGE_COLORS[found[0]], _shortened(body))
    body = FONT.sub(lambda found: f"font-size: {found[2]}" + (f"; font-weight: {found[1]}" if found[1] else ""), body)
    size = f"width:{width * PIXELS_PER_POINT:.0f}px"
    # matplotlib escapes the texts of a figure
    return Markup(f'<svg class="chart" role="img" {box} style="{size}">{body}')


def _simplify(axes: Axes) -> None:
    """Make pictures of what would be many elements; write the numbers of logarithmic axes without formulas."""
    for points in axes.collections:
        points.set_rasterized(len(points.get_offsets()) > MOST_POINTS)  # type: ignore[arg-type]
    for line in axes.lines if len(axes.lines) > MOST_LINES else ():
        line.set_rasterized(str(line.get_label()).startswith("_"))  # those without a name
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_major_formatter(FuncFormatter(lambda number, place: f"{number:g}"))
            axis.set_minor_formatter(NullFormatter())


def _short(found: re.Match[str]) -> str:
    return found[1] or " "


def _shortened(text: str) -> str:
    """Return SVG without indentation, and with coordinates to a hundredth of a point."""
    text = re.sub(r">\s+<", "><", text)
    return PLACE.sub(lambda found: re.sub(r"(\.\d\d)\d+|\s+", _short, found[0]), text)
