"""Draw the plots of a benchmark."""

from __future__ import annotations

import math

from epkit._system.text import format_bytes, format_percent, format_seconds
from epkit.benchmark.document import Benchmark, Comparison
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
from epkit.benchmark.report.tables import Runs, figures_of
from epkit.benchmark.statistics.differences import pair_blocks, scores
from epkit.benchmark.statistics.verdicts import blocks_by_candidate

ROW = 30
"""Points of height for each row of a plot."""
BINS = 72


def series(found: Benchmark, place: int) -> int:
    """Return the number of a candidate's colour, the same throughout: only those with figures need one."""
    return sum(each.status == "ok" for each in found.candidates[:place]) % SERIES


def distributions(found: Benchmark, at: int, runs: Runs) -> Plot | None:
    """Draw the distribution of the runs of each candidate on one case, on one axis."""
    mine = [each for each in figures_of(found, at) if runs[at, each.candidate]]
    scale = histogram.scale([runs[at, each.candidate] for each in mine], shown=0.995)
    if scale is None or scale.high_s <= scale.low_s:
        return None
    with style():
        figure, axes = canvas(56 + 1.4 * ROW * len(mine))
        edges = [scale.low_s, *scale.edges(BINS), scale.high_s]
        for row, each in enumerate(mine):
            its = runs[at, each.candidate]
            counts = histogram.counts([run for run in its if run <= scale.high_s], scale, BINS)
            most = max(counts) or 1
            heights = [-row + 0.78 * count / most for count in counts]
            face = colour(series(found, each.candidate))
            axes.stairs(heights, edges, baseline=-row, fill=True, facecolor=face, alpha=0.55, linewidth=0)
            axes.plot([each.median.value_s] * 2, [-row, -row + 0.86], color=INK, linewidth=1.6)
            for mark in (each.p90, each.p99):
                if mark is not None and mark.value_s <= scale.high_s:
                    axes.plot([mark.value_s] * 2, [-row, -row + 0.3], color=INK, linewidth=1)
            axes.axhline(-row, color=GRID, linewidth=0.8, zorder=0)
        axis.names(
            axes, [sentences.label(found, each.candidate) for each in mine], [-row + 0.3 for row in range(len(mine))]
        )
        axes.set_ylim(-len(mine) + 0.9, 1.0)
        axes.set_xlim(scale.low_s, scale.high_s)
        axis.times(axes, logarithmic=scale.logarithmic, low=scale.low_s, high=scale.high_s)
        beyond = sum(run > scale.high_s for each in mine for run in runs[at, each.candidate])
        missing = f" The slowest {beyond:,} lie beyond its right end." if beyond else ""
        axes.set_xlabel("time of a run" + (", logarithmic" if scale.logarithmic else ""))
        caption = "Distribution of the runs. Long marks are medians, short ones p90 and p99." + missing
        return finished(figure, f"runs-{at}", caption)


def forest(found: Benchmark, at: int) -> Plot | None:
    """Draw each ratio with its interval, the scores of the processes, and the zone in which two are the same."""
    mine = [each for each in found.findings.comparisons if each.case == at]
    if not mine:
        return None
    blocks = blocks_by_candidate(found.measured.blocks, found.measured.processes)
    smallest = found.measured.request.smallest_effect
    with style():
        figure, axes = canvas(60 + 1.25 * ROW * len(mine))
        axes.axvspan(1 / (1 + smallest), 1 + smallest, color=GOOD, linewidth=0)
        axes.axvline(1, color=GREY, linewidth=1)
        ends = [1 / (1 + 1.6 * smallest), 1 + 1.6 * smallest]
        for row, each in enumerate(mine):
            for side, its in zip(
                (0.2, -0.2),
                scores(pair_blocks(blocks.get((at, each.a), ()), blocks.get((at, each.b), ()))),
                strict=True,
            ):
                who = each.a if side > 0 else each.b
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
            axes.plot([each.time.low, each.time.high], [-row] * 2, color=INK, linewidth=2.4)
            axes.plot([each.time.ratio], [-row], "D", color=INK, markersize=5.5, mew=0)
            for end in (1 + each.floor, 1 / (1 + each.floor)):
                axes.plot([end] * 2, [-row - 0.32, -row + 0.32], color=FAINT, linewidth=1, linestyle=(0, (2, 2)))
            ends += [each.time.low, each.time.high, 1 + each.floor, 1 / (1 + each.floor)]
        axis.names(axes, [_names(found, each) for each in mine], [-row for row in range(len(mine))])
        axes.set_ylim(-len(mine) + 0.4, 0.6)
        room = (max(ends) / min(ends)) ** 0.04
        axes.set_xscale("log")
        axes.set_xlim(min(ends) / room, max(ends) * room)
        axis.ratios(axes, min(ends), max(ends))
        axes.set_xlabel("ratio of times")
        return finished(
            figure,
            f"verdicts-{at}",
            f"Each ratio with its interval. Dots are scores of single processes; within the band of "
            f"{format_percent(smallest)} a difference does not matter; dotted marks: minimum detectable difference.",
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
        for place in sorted({each.candidate for each in found.findings.figures}):
            points = sorted(
                (case.dimensions[name], each.throughput_per_s * (case.dimensions[name] if per_run else 1))
                for each in found.findings.figures
                if each.candidate == place
                for case in [found.measured.cases[each.case]]
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
        axes.xaxis.set_major_locator(FixedLocator([float(each) for each in sizes]))
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
    """Draw the time from nothing to the first output, with a warm and a cold cache."""
    firsts = {each.candidate: each.first_run_s for each in figures_of(found, 0)}
    rows = []
    for each in found.findings.starts:
        if found.candidates[each.candidate].status != "ok":
            continue
        name, first = sentences.label(found, each.candidate), firsts.get(each.candidate) or 0.0
        rows.append((name, each.candidate, (each.import_s, each.open_s, first)))
        if each.open_cold_s is not None:
            rows.append((f"{name}, cold", each.candidate, (each.import_s, each.open_cold_s, first)))
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
        cold = " Cold: with an empty cache." if any("cold" in name for name, _, _ in rows) else ""
        return finished(figure, "starts", f"Time to the first output.{cold}")


def memory(found: Benchmark) -> Plot | None:
    """Draw the memory of a process, of the host and of its GPU."""
    rows = [
        (sentences.label(found, each.candidate) + (", GPU" if device else ""), each.candidate, value, bool(device))
        for each in found.findings.starts
        if found.candidates[each.candidate].status == "ok"
        for device, value in enumerate((each.peak_rss_bytes, each.device_bytes))
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
        (place, each.placement) for place, each in enumerate(found.candidates) if each.status == "ok" and each.placement
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
            figure, "placement", "Providers that ran the nodes: in colour the first of the target, in grey others."
        )


def _names(found: Benchmark, each: Comparison) -> str:
    return f"{short(sentences.label(found, each.b), 14)}\nrelative to {short(sentences.label(found, each.a), 14)}"


def _varied(found: Benchmark) -> str | None:
    """Return the only dimension in whose size the cases differ."""
    cases = [case.dimensions for case in found.measured.cases]
    names = {name for case in cases for name in case}
    varied = [name for name in names if len({case.get(name) for case in cases}) > 1]
    return varied[0] if len(varied) == 1 and all(varied[0] in case for case in cases) else None


def _callers(found: Benchmark) -> str:
    callers = found.measured.request.callers
    return "one caller" if callers == 1 else f"{callers} callers"
