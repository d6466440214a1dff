"""Compute by how much two candidates differ, and how well that is known.

Processes of one candidate differ for their whole lifetime, by their memory layout, and no number of runs averages that
out. So the unit is the process, not the run: in each pair the blocks of both candidates are back to back, which cancels
whatever slows the machine as a whole; the score of a process is the median over its pairs, without the scores of its
partners; and the interval comes from the spread of the scores (Welch).
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from epkit.benchmark.document import Block, Estimate
from epkit.benchmark.statistics import student
from epkit.benchmark.statistics.quantiles import counted_runs, is_counted

POWER = 0.9
POLISH_PASSES = 10
LEAST_RUNS_FOR_P99 = 100
"""The runs that a process needs for a 99th percentile of its own."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The natural logarithm of the ratio of two candidates' times, b's over a's, and how well it is known."""

    log_ratio: float
    error: float
    """The standard error."""
    freedom: float
    """The degrees of freedom of that error."""
    processes: int
    """Of the candidate that has fewer."""
    pairs: int

    def half_width(self, level: float) -> float:
        """Return half of the width of the interval of the logarithm, at a level of confidence such as 0.95."""
        return student.quantile((1 + level) / 2, self.freedom) * self.error

    def estimate(self, level: float) -> Estimate:
        """Return the ratio and its interval."""
        half = self.half_width(level)
        return Estimate(*map(student.ratio, (self.log_ratio, self.log_ratio - half, self.log_ratio + half)))

    def floor(self, level: float) -> float:
        """Return the minimum detectable difference, as a share: the interval excludes 1 in 9 of 10 cases."""
        half = self.half_width(level) + student.quantile(POWER, self.freedom) * self.error
        return math.expm1(min(half, student.WIDEST))


Pairs = Sequence[tuple[int, int, int, float]]
"""For each pair of blocks the round, the two processes, and by how much the logarithm of b's time exceeds a's."""


def difference(pairs: Pairs) -> Difference | None:
    """Compute the difference from all pairs of blocks; None with fewer than two processes on a side."""
    a, b = scores(pairs)
    if min(len(a), len(b)) < 2:
        return None
    # The scores of both sides estimate the same difference.
    middle = (statistics.fmean(a) + statistics.fmean(b)) / 2
    return Difference(middle, *_welch(a, b), min(len(a), len(b)), len(pairs))


def combine_errors(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the standard error of a sum, and its degrees of freedom (Welch and Satterthwaite).

    Each part is the variance of a summand, and the degrees of freedom of that.
    """
    variance = math.fsum(part for part, _ in parts)
    spread = math.fsum(part * part / freedom for part, freedom in parts)
    freedom = variance * variance / spread if spread > 0 else math.fsum(freedom for _, freedom in parts)
    return math.sqrt(variance), freedom


def _welch(*sides: Sequence[float]) -> tuple[float, float]:
    return combine_errors([(statistics.variance(side) / len(side), len(side) - 1) for side in sides])


def scores(pairs: Pairs) -> tuple[list[float], list[float]]:
    """Return the score of each process, those of a's and those of b's.

    The processes of all rounds are one sample: a variance of each round would have fewer degrees of freedom, for no
    benefit.
    """
    of_a: list[float] = []
    of_b: list[float] = []
    for number in sorted({pair[0] for pair in pairs}):
        a, b = _scores_of_round([(a, b, more) for at, a, b, more in pairs if at == number])
        of_a += a
        of_b += b
    return of_a, of_b


def _scores_of_round(pairs: Sequence[tuple[int, int, float]]) -> tuple[Sequence[float], Sequence[float]]:
    """Return the scores of the processes of one round: the difference of the candidates by each of them.

    Tukey's median polish: a pair is the sum of what its two processes contribute, and in each pass either takes half of
    the median of the residuals. A plain median over the pairs of a process would depend on which half of its partners
    happens to be the larger one, where processes are of two kinds.
    """
    shares: tuple[dict[int, float], dict[int, float]] = (defaultdict(float), defaultdict(float))
    for _ in range(POLISH_PASSES):
        residuals: tuple[dict[int, list[float]], dict[int, list[float]]] = (defaultdict(list), defaultdict(list))
        for a, b, more in pairs:
            residual = more - shares[0][a] - shares[1][b]
            residuals[0][a].append(residual)
            residuals[1][b].append(residual)
        for side, by_process in zip(shares, residuals, strict=True):
            for process, rest in by_process.items():
                side[process] += statistics.median(rest) / 2
    means = [statistics.fmean(side.values()) for side in shares]
    return [share + means[1] for share in shares[0].values()], [share + means[0] for share in shares[1].values()]


def pair_blocks(a: Iterable[Block], b: Iterable[Block]) -> Pairs:
    """Pair the blocks of two candidates; the time of a block is the median of its runs."""
    return [(one.round, one.process, other.process, _log_time(other) - _log_time(one)) for one, other in _matched(a, b)]


def _matched(a: Iterable[Block], b: Iterable[Block]) -> Iterator[tuple[Block, Block]]:
    first = {(block.round, block.pair): block for block in a if is_counted(block)}
    for other in b:
        block = first.get((other.round, other.pair))
        if block is not None:
            yield block, other


def slow_runs(a: Iterable[Block], b: Iterable[Block]) -> Difference | None:
    """Compute by how much the 99th percentiles differ; None where a process has too few runs for one.

    Each run is taken relative to the times of its pair of blocks, which cancels what slows the machine as a whole. Then
    the score of a process is its 99th percentile.
    """
    runs: tuple[dict[int, list[float]], dict[int, list[float]]] = (defaultdict(list), defaultdict(list))
    matched = list(_matched(a, b))
    for blocks in matched:
        level = sum(map(_log_time, blocks)) / 2
        for side, block in zip(runs, blocks, strict=True):
            side[block.process].extend(math.log(run) - level for run in counted_runs(block))
    if any(len(side) < 2 or min(map(len, side.values())) < LEAST_RUNS_FOR_P99 for side in runs):
        return None
    slow_a, slow_b = ([_p99(logs) for logs in side.values()] for side in runs)
    middle = statistics.fmean(slow_b) - statistics.fmean(slow_a)
    return Difference(middle, *_welch(slow_a, slow_b), min(len(slow_a), len(slow_b)), len(matched))


def _p99(runs: Sequence[float]) -> float:
    return sorted(runs)[math.ceil(len(runs) * 0.99) - 1]


def _log_time(block: Block) -> float:
    return math.log(statistics.median(counted_runs(block)))
