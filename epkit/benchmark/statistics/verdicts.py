"""Compute the findings of a benchmark from what was measured.

Pure: the same measurements give the same findings, when a benchmark ends and when its document is verified.

A candidate is called faster or slower only for a difference that is at least the smallest effect, and at least the
minimum detectable difference (the floor). It is called the same when the whole interval lies within the smallest
effect. Everything else is undecided.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    swap,
)
from epkit.benchmark.statistics.differences import Difference, difference, pair_blocks, slow_runs
from epkit.benchmark.statistics.quantiles import counted_blocks, pooled_runs, quantile

CONFIDENCE = 0.95
SURE = 0.999

Blocks = Mapping[tuple[int, int], Sequence[Block]]
"""By case and candidate."""


def findings(measured: Measured) -> Findings:
    """Compute everything that is printed."""
    blocks = blocks_by_candidate(measured.blocks, measured.processes)
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
    """Return whether b is faster or slower than a."""
    most = 1 + smallest_effect
    if 1 / most < time.low and time.high < most:
        return "same"
    least = 1 + max(floor, smallest_effect)
    if time.ratio >= least:
        return "slower"
    return "faster" if time.ratio <= 1 / least else "undecided"


def is_settled(found: Difference, level: float, smallest_effect: float) -> bool:
    """Whether more processes would change nothing: the smallest effect is detectable, or the difference is plain.

    Continuing until a difference is significant would always find one eventually. So a benchmark ends by the width of
    the interval, not by its position; except for a difference whose 99.9 % interval lies beyond the smallest effect.
    """
    if found.floor(level) <= smallest_effect:
        return True
    return abs(found.log_ratio) - found.half_width(SURE) > math.log1p(smallest_effect)


def all_differences(measured: Measured) -> Iterator[Difference | None]:
    """Yield the difference of every two candidates that are measured, case by case."""
    blocks = blocks_by_candidate(measured.blocks, measured.processes)
    for case, a, b in comparable(measured):
        yield difference(pair_blocks(blocks.get((case, a), ()), blocks.get((case, b), ())))


def comparable(measured: Measured) -> Sequence[tuple[int, int, int]]:
    """Return every case with every two candidates that can be compared."""
    places = _measured_candidates(measured)
    return [(case, a, b) for case in range(len(measured.cases)) for a, b in combinations(places, 2)]


def level_of(measured: Measured) -> float:
    """Return the confidence that each interval needs, so that all of them hold together (Bonferroni)."""
    return corrected_level(len(comparable(measured)))


def corrected_level(intervals: int) -> float:
    """Return the confidence of each of several intervals, so that all of them hold together (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / max(1, intervals)


def blocks_by_candidate(blocks: Sequence[Block], processes: Sequence[Process]) -> Blocks:
    """Group blocks by case and candidate."""
    groups: dict[tuple[int, int], list[Block]] = {}
    for block in blocks:
        groups.setdefault((block.case, processes[block.process].candidate), []).append(block)
    return groups


def _measured_candidates(measured: Measured) -> Sequence[int]:
    return [place for place, candidate in enumerate(measured.candidates) if candidate.status == "ok"]


def _comparisons(measured: Measured, blocks: Blocks, level: float) -> Iterator[Comparison]:
    for case, a, b in comparable(measured):
        of_a, of_b = blocks.get((case, a), ()), blocks.get((case, b), ())
        found = difference(pair_blocks(of_a, of_b))
        if found is None:
            continue
        time, floor = found.estimate(level), found.floor(level)
        slow = slow_runs(of_a, of_b)
        p99 = None if slow is None else slow.estimate(level)
        judged = verdict(time, floor, measured.request.smallest_effect)
        yield Comparison(case, a, b, time, p99, floor, judged, found.processes, found.pairs)


def _figures(measured: Measured, blocks: Blocks) -> Iterator[Figures]:
    for (case, candidate), every in sorted(blocks.items()):
        counted = counted_blocks(every)
        samples = pooled_runs(counted)
        median = quantile(samples, 0.5)
        if median is None or measured.candidates[candidate].status != "ok":
            continue
        processes = [process for process in measured.processes if process.candidate == candidate]
        firsts = [process.first_run_s[case] for process in processes if len(process.first_run_s) > case]
        warmups = [process.warmups[case] for process in processes if process.round and len(process.warmups) > case]
        yield Figures(
            candidate,
            case,
            len({block.process for block in counted}),
            len(samples),
            median,
            quantile(samples, 0.9),
            quantile(samples, 0.99),
            measured.request.callers * len(samples) / math.fsum(samples),
            math.fsum(block.cpu_s for block in counted) / sum(len(block.samples_s) for block in counted),
            statistics.median(firsts) if firsts else None,
            int(statistics.median_low(warmup.runs for warmup in warmups)) if warmups else 0,
            all(warmup.steady for warmup in warmups),
        )


def _starts(measured: Measured) -> Iterator[Start]:
    for candidate in range(len(measured.candidates)):
        processes = [process for process in measured.processes if process.candidate == candidate]
        if not processes:
            continue
        # Where a provider keeps what it compiles, one process starts with an empty cache, and the others from it.
        cold = [process.open_s for process in processes if process.cache == "cold"]
        usual = [process.open_s for process in processes if process.cache != "cold"] or cold
        yield Start(
            candidate,
            statistics.median(process.import_s for process in processes),
            statistics.median(usual),
            statistics.median(cold) if cold else None,
            _largest(process.peak_rss_bytes for process in processes),
            _largest(process.device_bytes for process in processes),
        )


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _winner(measured: Measured, comparisons: Sequence[Comparison], case: int) -> int | None:
    places = _measured_candidates(measured)
    both = [each for found in comparisons if found.case == case for each in (found, swap(found))]
    for place in places:
        others = {each.a for each in both if each.b == place and each.verdict == "faster"}
        if others and others == {*places} - {place}:
            return place
    return None
