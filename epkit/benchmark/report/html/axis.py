"""Label the axes of a plot."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from epkit.benchmark.report.html.drawing import GREY, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def names(axes: Axes, names: Iterable[str], places: Sequence[float]) -> None:
    """Write the names of rows on the left."""
    axes.set_yticks(places, ["\n".join(map(short, name.split("\n"))) for name in names])


def legend(axes: Axes, names: Sequence[str]) -> None:
    """Draw a legend of the shades."""
    from matplotlib.patches import Patch

    shades = [Patch(facecolor=GREY, alpha=alpha, linewidth=0) for alpha in (0.3, 0.6, 1.0)]
    axes.figure.legend(shades, names, loc="outside upper left", ncols=3, handlelength=1.2)


def times(axes: Axes, *, low: float, high: float, logarithmic: bool = False) -> None:
    """Write the ticks of an axis of seconds in one unit that suits it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    factor, unit = next(((f, u) for end, f, u in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")) if high < end), (1.0, "s"))
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 200 else (1,)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * factor:.4g} {unit}"))


def ratios(axes: Axes, low: float, high: float) -> None:
    """Write the ticks of an axis of ratios."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    step = next((each for each in steps if (high - low) / each <= 6), None)
    if step is None:
        ticks = [base * 10.0**power for power in range(-6, 7) for base in (1, 2, 5)]
        ticks = [tick for tick in ticks if low <= tick <= high]
        ticks = ticks if len(ticks) <= 6 else [tick for tick in ticks if round(math.log10(tick), 6) % 1 == 0]
    else:
        ticks = [at * step for at in range(math.ceil(low / step), math.floor(high / step) + 1)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}x"))
