"""What is drawn of a benchmark?"""

from __future__ import annotations

import math

from epkit._system.text import format_bytes, format_percent, format_seconds
from epkit.benchmark.document import Benchmark, Comparison, Figures
from epkit.benchmark.report import histogram, sentences
from epkit.benchmark.report.html import axis
from epkit.benchmark.report.html.drawing import (
    FAINT,
    GOOD,
    GREY,
    GRID,
    INK,
    SERIES,
    Plot,
    canvas,
    colour,
    finished,
    short,
    style,
)
from epkit.benchmark.report.tables import Runs
from epkit.benchmark.statistics.differences import pairs, scores
from epkit.benchmark.statistics.verdicts import by_candidate

ROW = 30
"""Points of height for each row of a plot."""
BINS = 72


def series(found: Benchmark, place: int) -> int:
    """Return the number of a candidate's colour, the same throughout: only those with figures need one."""
    return sum(one.status == "ok" for one in found.candidates[:place]) % SERIES


def distributions(found: Benchmark, at: int, runs: Runs) -> Plot | None:
    """Draw how the runs of each candidate spread on one case, on one axis."""
    mine = [one for one in _figures(found, at) if runs[at, one.candidate]]
    scale = histogram.scale([runs[at, one.candidate] for one in mine], shown=0.995)
    if scale is None or scale.high_s <= scale.low_s:
        return None
    with style():
        figure, axes = canvas(56 + 1.4 * ROW * len(mine))
        edges = [scale.low_s, *scale.edges(BINS), scale.high_s]
        for row, one in enumerate(mine):
            its = runs[at, one.candidate]
            counts = histogram.counts([run for run in its if run <= scale.high_s], scale, BINS)
            most = max(counts) or 1
            heights = [-row + 0.78 * count / most for count in counts]
            face = colour(series(found, one.candidate))
            axes.stairs(heights, edges, baseline=-row, fill=True, facecolor=face, alpha=0.55, linewidth=0)
            axes.plot([one.median.value_s] * 2, [-row, -row + 0.86], color=INK, linewidth=1.6)
            for each in (one.p90, one.p99):
                if each is not None and each.value_s <= scale.high_s:
                    axes.plot([each.value_s] * 2, [-row, -row + 0.3], color=INK, linewidth=1)
            axes.axhline(-row, color=GRID, linewidth=0.8, zorder=0)
        axis.names(
            axes, [sentences.label(found, one.candidate) for one in mine], [-row + 0.3 for row in range(len(mine))]
        )
        axes.set_ylim(-len(mine) + 0.9, 1.0)
        axes.set_xlim(scale.low_s, scale.high_s)
        axis.times(axes, logarithmic=scale.logarithmic, low=scale.low_s, high=scale.high_s)
        beyond = sum(run > scale.high_s for one in mine for run in runs[at, one.candidate])
        missing = f" The slowest {beyond:,} lie beyond its right end." if beyond else ""
        axes.set_xlabel("time of a run" + (", logarithmic" if scale.logarithmic else ""))
        caption = "How the runs spread. Long marks are medians, short ones p90 and p99." + missing
        return finished(figure, f"runs-{at}", caption)


def forest(found: Benchmark, at: int) -> Plot | None:
    """Draw each ratio with its interval, the scores of the processes, and the zone in which two are the same."""
    mine = [one for one in found.findings.comparisons if one.case == at]
    if not mine:
        return None
    blocks = by_candidate(found.measured.blocks, found.measured.processes)
    smallest = found.measured.request.smallest_effect
    with style():
        figure, axes = canvas(60 + 1.25 * ROW * len(mine))
        axes.axvspan(1 / (1 + smallest), 1 + smallest, color=GOOD, linewidth=0)
        axes.axvline(1, color=GREY, linewidth=1)
        ends = [1 / (1 + 1.6 * smallest), 1 + 1.6 * smallest]
        for row, one in enumerate(mine):
            for side, its in zip(
                (0.2, -0.2), scores(pairs(blocks.get((at, one.a), ()), blocks.get((at, one.b), ()))), strict=True
            ):
                who = one.a if side > 0 else one.b
                ratios = [math.exp(score) for score in its]
                axes.plot(
                    ratios,
                    [-row + side] * len(its),
                    "o",
                    color=colour(series(found, who)),
                    markersize=4,
                    alpha=0.6,
                    mew=0,
                )
                ends += ratios
            axes.plot([one.time.low, one.time.high], [-row] * 2, color=INK, linewidth=2.4)
            axes.plot([one.time.ratio], [-row], "D", color=INK, markersize=5.5, mew=0)
            for end in (1 + one.floor, 1 / (1 + one.floor)):
                axes.plot([end] * 2, [-row - 0.32, -row + 0.32], color=FAINT, linewidth=1, linestyle=(0, (2, 2)))
            ends += [one.time.low, one.time.high, 1 + one.floor, 1 / (1 + one.floor)]
        axis.names(axes, [_beside(found, one) for one in mine], [-row for row in range(len(mine))])
        axes.set_ylim(-len(mine) + 0.4, 0.6)
        room = (max(ends) / min(ends)) ** 0.04
        axes.set_xscale("log")
        axes.set_xlim(min(ends) / room, max(ends) * room)
        axis.ratios(axes, min(ends), max(ends))
        axes.set_xlabel("takes so many times the time of the other")
        return finished(
            figure,
            f"verdicts-{at}",
            f"Each ratio with its interval. Dots are scores of single processes; within the band of "
            f"{format_percent(smallest)} a difference does not matter; beyond the dotted marks it could be told here.",
        )


def throughput(found: Benchmark) -> Plot | None:
    """Draw the throughput over the sizes of the dimension that varies, where one does."""
    name = _varied(found)
    if name is None:
        return None
    per_run = name == "batch"
    with style():
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        figure, axes = canvas(240)
        sizes = sorted({case.dimensions[name] for case in found.measured.cases})
        for place in sorted({one.candidate for one in found.findings.figures}):
            points = sorted(
                (case.dimensions[name], one.throughput_per_s * (case.dimensions[name] if per_run else 1))
                for one in found.findings.figures
                if one.candidate == place
                for case in [found.measured.cases[one.case]]
            )
            axes.plot(
                *zip(*points, strict=True),
                "o-",
                color=colour(series(found, place)),
                label=short(sentences.label(found, place), 28),
                linewidth=2,
                markersize=6,
            )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator([float(one) for one in sizes]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.set_xlabel(name)
        axes.set_ylabel("rows/s (runs/s x batch)" if per_run else "runs/s")
        figure.legend(loc="outside upper left", ncols=2)
        return finished(figure, "throughput", f"Throughput by {name}, {_callers(found)}.")


def starts(found: Benchmark) -> Plot | None:
    """Draw what it takes from nothing to the first answer, with what is kept and without."""
    firsts = {one.candidate: one.first_run_s for one in _figures(found, 0)}
    rows = []
    for one in found.findings.starts:
        if found.candidates[one.candidate].status != "ok":
            continue
        name, first = sentences.label(found, one.candidate), firsts.get(one.candidate) or 0.0
        rows.append((name, one.candidate, (one.import_s, one.open_s, first)))
        if one.open_cold_s is not None:
            rows.append((f"{name}, cold", one.candidate, (one.import_s, one.open_cold_s, first)))
    if not rows:
        return None
    with style():
        figure, axes = canvas(80 + ROW * len(rows))
        for row, (_, place, parts) in enumerate(rows):
            left = 0.0
            for part, alpha in zip(parts, (0.3, 0.6, 1.0), strict=True):
                axes.barh(
                    -row, part, left=left, height=0.62, color=colour(series(found, place)), alpha=alpha, linewidth=0
                )
                left += part
            axes.annotate(format_seconds(left), (left, -row), (5, 0), textcoords="offset points", va="center", size=10)
        axis.names(axes, [name for name, _, _ in rows], [-row for row in range(len(rows))])
        axes.set_xlim(0, max(sum(parts) for _, _, parts in rows) * 1.16)
        axis.times(axes, low=0, high=max(sum(parts) for _, _, parts in rows))
        axes.grid(axis="x")
        axis.legend(axes, ("import", "open", "first run"))
        cold = " Cold: with nothing kept of what was compiled." if any("cold" in name for name, _, _ in rows) else ""
        return finished(figure, "starts", f"From nothing to the first answer.{cold}")


def memory(found: Benchmark) -> Plot | None:
    """Draw the memory of a process, of the host and of its GPU."""
    rows = [
        (sentences.label(found, one.candidate) + (", GPU" if device else ""), one.candidate, value, bool(device))
        for one in found.findings.starts
        if found.candidates[one.candidate].status == "ok"
        for device, value in enumerate((one.peak_rss_bytes, one.device_bytes))
        if value is not None
    ]
    if not rows:
        return None
    with style():
        figure, axes = canvas(56 + ROW * len(rows))
        for row, (_, place, value, device) in enumerate(rows):
            alpha = 0.5 if device else 1.0
            axes.barh(-row, value / 2**20, height=0.62, color=colour(series(found, place)), alpha=alpha, linewidth=0)
            axes.annotate(
                format_bytes(value), (value / 2**20, -row), (5, 0), textcoords="offset points", va="center", size=10
            )
        axis.names(axes, [name for name, _, _, _ in rows], [-row for row in range(len(rows))])
        axes.set_xlim(0, max(value for _, _, value, _ in rows) / 2**20 * 1.2)
        axes.grid(axis="x")
        axes.set_xlabel("MiB")
        return finished(figure, "memory", "The most memory that a process held.")


def placement(found: Benchmark) -> Plot | None:
    """Draw which providers ran the nodes of each candidate."""
    rows = [
        (place, one.placement) for place, one in enumerate(found.candidates) if one.status == "ok" and one.placement
    ]
    if not rows:
        return None
    with style():
        from matplotlib.ticker import FuncFormatter

        figure, axes = canvas(52 + ROW * len(rows))
        for row, (place, its) in enumerate(rows):
            left = 0.0
            for provider, taken in sorted(its.items(), key=lambda pair: -pair[1].get("share", 0.0)):
                share, own = taken.get("share", 0.0) * 100, provider == found.candidates[place].provider
                face = colour(series(found, place)) if own else GREY
                axes.barh(-row, share, left=left, height=0.62, color=face, linewidth=0, alpha=1 if own else 0.6)
                left += share
        axis.names(axes, [sentences.label(found, place) for place, _ in rows], [-row for row in range(len(rows))])
        axes.set_xlim(0, 100)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))
        axes.grid(axis="x")
        axes.set_xlabel("nodes")
        return finished(
            figure, "placement", "Who ran the nodes: in colour the provider that was meant, in grey others."
        )


def _figures(found: Benchmark, at: int) -> list[Figures]:
    return sorted((one for one in found.findings.figures if one.case == at), key=lambda one: one.candidate)


def _beside(found: Benchmark, one: Comparison) -> str:
    return f"{short(sentences.label(found, one.b), 14)}\nbeside {short(sentences.label(found, one.a), 14)}"


def _varied(found: Benchmark) -> str | None:
    """Return the only dimension in whose size the cases differ."""
    cases = [case.dimensions for case in found.measured.cases]
    names = {name for case in cases for name in case}
    varied = [name for name in names if len({case.get(name) for case in cases}) > 1]
    return varied[0] if len(varied) == 1 and all(varied[0] in case for case in cases) else None


def _callers(found: Benchmark) -> str:
    callers = found.measured.request.callers
    return "one caller" if callers == 1 else f"{callers} callers"
