"""What follows from what was measured?

Pure: the same measurements give the same findings, today and when a document is verified.

A candidate is called faster or slower only for a difference that matters and that this machine could tell: one that is
at least the smallest effect, and at least the floor, below which nine of ten cases would not be found. It is called the
same when the whole interval lies within the smallest effect. Everything else is undecided.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from epkit.benchmark.document import (
    Block,
    Comparison,
    Estimate,
    Figures,
    Findings,
    Measured,
    Process,
    Start,
    Verdict,
    turned,
)
from epkit.benchmark.statistics.differences import Difference, difference, pairs, slow_runs
from epkit.benchmark.statistics.quantiles import pooled, quantile, settled

CONFIDENCE = 0.95
BEYOND_DOUBT = 0.999


def findings(measured: Measured) -> Findings:
    """Work out everything that is printed."""
    blocks = by_candidate(measured.blocks, measured.processes)
    level = level_of(measured)
    comparisons = tuple(_comparisons(measured, blocks, level))
    return Findings(
        starts=tuple(_starts(measured)),
        figures=tuple(_figures(measured, blocks)),
        comparisons=comparisons,
        level=level,
        winners=tuple(_winner(measured, comparisons, case) for case in range(len(measured.cases))),
    )


def verdict(time: Estimate, floor: float, smallest_effect: float) -> Verdict:
    """Say what b is beside a."""
    most = 1 + smallest_effect
    if 1 / most < time.low and time.high < most:
        return "same"
    least = 1 + max(floor, smallest_effect)
    if time.ratio >= least:
        return "slower"
    return "faster" if time.ratio <= 1 / least else "undecided"


def is_settled(found: Difference, level: float, smallest_effect: float) -> bool:
    """Whether more processes would change nothing: the smallest effect could be told, or the difference is plain.

    Going on until a difference is significant would find one sooner or later. So it is the width of the interval that
    ends a benchmark, not where it lies; but for a difference whose 99.9 % interval lies beyond the smallest effect.
    """
    if found.floor(level) <= smallest_effect:
        return True
    return abs(found.log_ratio) - found.half_width(BEYOND_DOUBT) > math.log1p(smallest_effect)


def differences(measured: Measured) -> Iterator[Difference | None]:
    """Yield the difference of every two candidates that take part, case by case."""
    blocks = by_candidate(measured.blocks, measured.processes)
    for case, a, b in couples(measured):
        yield difference(pairs(blocks.get((case, a), ()), blocks.get((case, b), ())))


def couples(measured: Measured) -> Sequence[tuple[int, int, int]]:
    """Return every case with every two candidates that can be compared."""
    takes_part = [place for place, one in enumerate(measured.candidates) if one.status == "ok"]
    return [(case, a, b) for case in range(len(measured.cases)) for a, b in combinations(takes_part, 2)]


def level_of(measured: Measured) -> float:
    """Return the confidence that each of several intervals needs, so that all hold together (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / max(1, len(couples(measured)))


def by_candidate(blocks: Sequence[Block], processes: Sequence[Process]) -> Mapping[tuple[int, int], Sequence[Block]]:
    """Group blocks by case and candidate."""
    found: dict[tuple[int, int], list[Block]] = {}
    for one in blocks:
        found.setdefault((one.case, processes[one.process].candidate), []).append(one)
    return found


def _comparisons(
    measured: Measured, blocks: Mapping[tuple[int, int], Sequence[Block]], level: float
) -> Iterator[Comparison]:
    for case, a, b in couples(measured):
        of_a, of_b = blocks.get((case, a), ()), blocks.get((case, b), ())
        found = difference(pairs(of_a, of_b))
        if found is None:
            continue
        time, floor = found.estimate(level), found.floor(level)
        slow = slow_runs(of_a, of_b)
        said = verdict(time, floor, measured.request.smallest_effect)
        p99 = None if slow is None else slow.estimate(level)
        yield Comparison(case, a, b, time, p99, floor, said, found.processes, found.meetings)


def _figures(measured: Measured, blocks: Mapping[tuple[int, int], Sequence[Block]]) -> Iterator[Figures]:
    for (case, candidate), every in sorted(blocks.items()):
        if measured.candidates[candidate].status != "ok":
            continue
        its = settled(every)
        samples = pooled(its)
        median = quantile(samples, 0.5)
        if median is None:
            continue
        everyone = [one for one in measured.processes if one.candidate == candidate]
        firsts = [one.first_run_s[case] for one in everyone if len(one.first_run_s) > case]
        warmups = [one.warmups[case] for one in everyone if one.round > 0 and len(one.warmups) > case]
        yield Figures(
            candidate,
            case,
            len({one.process for one in its}),
            len(samples),
            median,
            quantile(samples, 0.9),
            quantile(samples, 0.99),
            measured.request.callers * len(samples) / math.fsum(samples),
            math.fsum(one.cpu_s for one in its) / sum(len(one.samples_s) for one in its),
            statistics.median(firsts) if firsts else None,
            int(statistics.median_low(one.runs for one in warmups)) if warmups else 0,
            all(one.steady for one in warmups),
        )


def _starts(measured: Measured) -> Iterator[Start]:
    for candidate in range(len(measured.candidates)):
        its = [one for one in measured.processes if one.candidate == candidate]
        if not its:
            continue
        # Where a provider keeps what it compiles, one process is measured without, and the others start from that.
        cold = [one.open_s for one in its if one.cache == "cold"]
        usual = [one for one in its if one.cache != "cold"] or its
        yield Start(
            candidate,
            statistics.median(one.import_s for one in its),
            statistics.median(one.open_s for one in usual),
            statistics.median(cold) if cold else None,
            _largest(one.peak_rss_bytes for one in its),
            _largest(one.device_bytes for one in its),
        )


def _largest(values: Iterator[int | None]) -> int | None:
    return max((one for one in values if one is not None), default=None)


def _winner(measured: Measured, comparisons: Sequence[Comparison], case: int) -> int | None:
    takes_part = [place for place, one in enumerate(measured.candidates) if one.status == "ok"]
    both = [one for found in comparisons if found.case == case for one in (found, turned(found))]
    for place in takes_part:
        others = {one.a for one in both if one.b == place and one.verdict == "faster"}
        if others and others == {*takes_part} - {place}:
            return place
    return None
