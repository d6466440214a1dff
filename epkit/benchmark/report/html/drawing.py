"""Turn a plot into a part of the page.

It is drawn with matplotlib, as SVG with text as text. Colours are placeholders there, and become variables of the
page's style sheet, so that a plot follows the reader's colour scheme. The same figure gives the same text.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = 8
"""How many candidates have a colour of their own; further ones begin again."""
INK, FAINT, GRID, GOOD, GREY = "#010101", "#010102", "#010103", "#010104", "#010105"
"""Text; axes and lesser text; lines of the grid; the zone in which two are the same; what belongs to no candidate."""
_VARIABLES: Mapping[str, str] = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GRID: "var(--line)",
    GOOD: "var(--zone)",
    GREY: "var(--grey)",
    **{f"#0202{at:02x}": f"var(--series-{at})" for at in range(SERIES)},
}

WIDTH = 400
"""In points: what a telephone has, nearly, so that text stays as large as it is meant to be."""
_SETTINGS: Mapping[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "epkit",
    "text.parse_math": False,
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "axes.edgecolor": GRID,
    "axes.titlecolor": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.solid_capstyle": "butt",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "ytick.major.size": 0,
    "xtick.major.size": 0,
    "xtick.minor.size": 0,
    "axes.labelsize": 10,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 10.5,
    "legend.frameon": False,
    "legend.fontsize": 10,
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing and what it shows."""

    caption: str
    svg: str


def colour(number: int) -> str:
    """Return the placeholder of a candidate's colour."""
    return f"#0202{number:02x}"


@contextmanager
def style() -> Iterator[None]:
    """Draw with these settings alone, whatever a person has configured."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the measuring font lacks: the reader's browser has one that does not.
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)  # type: ignore[arg-type]
        yield


def canvas(height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of the common width, and its axes; height in points."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
    return figure, figure.add_subplot()


def short(text: str, most: int = 18) -> str:
    """Shorten a name that would leave no room for the figures."""
    return text if len(text) <= most else f"{text[: most // 2]}\N{HORIZONTAL ELLIPSIS}{text[-(most // 2 - 1) :]}"


def finished(figure: Figure, name: str, caption: str) -> Plot:
    """Turn a figure into a part of the page; `name` must be the page's only one."""
    out = io.StringIO()
    unknown = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=unknown)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {box[0] if box else ""}'
    head += f' role="img" aria-label="{escape(caption)}"'
    # Many drawings share one page, and so one space of names; the text of a drawing is left as it is.
    tags = re.split(r"(<[^>]*>)", rest)
    rest = "".join(_tag(part, name) if part.startswith("<") else part for part in tags)
    return Plot(caption, f"{head}>{rest}")


def _tag(tag: str, name: str) -> str:
    tag = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', tag)
    tag = re.sub(r'"#([^"]*)"', rf'"#{name}-\1"', tag)
    tag = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", tag)
    tag = re.sub(r"#0[12]0[12]0[0-9a-f]", lambda found: _VARIABLES.get(found[0], found[0]), tag)
    return re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", tag)
