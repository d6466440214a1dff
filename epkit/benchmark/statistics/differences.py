"""By how much do two candidates differ, and how well is that known?

Processes differ from each other for as long as they live, by where their memory came to lie, and no number of runs
averages that out. So the unit is the process, not the run: in each meeting the blocks of both stand side by side, which
takes out whatever slows the machine as a whole; a process's score is the median of its meetings, once the scores of
those whom it met are taken out; and the interval comes from how far the scores of the processes are apart (Welch).
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from epkit.benchmark.document import Block, Estimate
from epkit.benchmark.statistics import student
from epkit.benchmark.statistics.quantiles import counted, counts

POWER = 0.9
PASSES = 10
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
    meetings: int

    def half_width(self, level: float) -> float:
        """Return by how much the logarithm may be off, at a level of confidence such as 0.95."""
        return student.quantile((1 + level) / 2, self.freedom) * self.error

    def estimate(self, level: float) -> Estimate:
        """Return the ratio and its interval."""
        half = self.half_width(level)
        return Estimate(*map(student.ratio, (self.log_ratio, self.log_ratio - half, self.log_ratio + half)))

    def floor(self, level: float) -> float:
        """Return the smallest difference, as a share, of which the interval would leave out 1 in 9 of 10 cases."""
        half = self.half_width(level) + student.quantile(POWER, self.freedom) * self.error
        return math.expm1(min(half, student.WIDEST))


Pairs = Sequence[tuple[int, int, int, float]]
"""For each meeting the round, the two processes, and by how much the logarithm of b's time exceeds a's."""


def difference(pairs: Pairs) -> Difference | None:
    """Work out the difference from all meetings; None with fewer than two processes on a side."""
    first, second = scores(pairs)
    return _welch(first, second, len(pairs))


def scores(pairs: Pairs) -> tuple[list[float], list[float]]:
    """Return the score of each process, those of a's and those of b's.

    The processes of all rounds count as one sample: with a variance for each round there would be fewer degrees of
    freedom, and nothing won.
    """
    of_a: list[float] = []
    of_b: list[float] = []
    for number in sorted({one[0] for one in pairs}):
        its_a, its_b = _scores([(a, b, more) for at, a, b, more in pairs if at == number])
        of_a += its_a
        of_b += its_b
    return of_a, of_b


def _scores(meetings: Sequence[tuple[int, int, float]]) -> tuple[Sequence[float], Sequence[float]]:
    """Give every process of a round its score: the difference of the candidates, as far as this process tells it.

    Tukey's median polish: a meeting is the sum of what its two processes contribute, and in each pass either takes half
    of the median of what is left over. A plain median of a process's meetings would hang on which half of its partners
    happens to be the larger one, where processes come in two kinds.
    """
    shares: tuple[dict[int, float], dict[int, float]] = (defaultdict(float), defaultdict(float))
    for _ in range(PASSES):
        left: tuple[dict[int, list[float]], dict[int, list[float]]] = (defaultdict(list), defaultdict(list))
        for a, b, more in meetings:
            rest = more - shares[0][a] - shares[1][b]
            left[0][a].append(rest)
            left[1][b].append(rest)
        for side, its in zip(shares, left, strict=True):
            for process, rests in its.items():
                side[process] += statistics.median(rests) / 2
    means = [statistics.fmean(side.values()) for side in shares]
    return [one + means[1] for one in shares[0].values()], [one + means[0] for one in shares[1].values()]


def _welch(a: Sequence[float], b: Sequence[float], meetings: int) -> Difference | None:
    """Both sides' scores estimate the same difference: the mean of the two means is taken."""
    if min(len(a), len(b)) < 2:
        return None
    parts = [(statistics.variance(one) / len(one), len(one) - 1) for one in (a, b)]
    variance = math.fsum(part for part, _ in parts)
    spread = math.fsum(part * part / freedom for part, freedom in parts)
    freedom = variance * variance / spread if spread > 0 else float(len(a) + len(b) - 2)
    middle = (statistics.fmean(a) + statistics.fmean(b)) / 2
    return Difference(middle, math.sqrt(variance), freedom, min(len(a), len(b)), meetings)


def pairs(a: Iterable[Block], b: Iterable[Block]) -> Pairs:
    """Pair the blocks of two candidates that met; the time of a block is the median of its runs."""
    first = {(one.round, one.meeting): one for one in a if counts(one)}
    found = []
    for other in b:
        one = first.get((other.round, other.meeting))
        if one is not None:
            found.append((one.round, one.process, other.process, _time(other) - _time(one)))
    return found


def slow_runs(a: Iterable[Block], b: Iterable[Block]) -> Difference | None:
    """Work out by how much the 99th percentiles differ; None where a process has too few runs for one.

    Each run is taken relative to how quick both were in its meeting, which takes out what slows the machine as a whole.
    Then each process has a 99th percentile, and these are its score.
    """
    first = {(one.round, one.meeting): one for one in a if counts(one)}
    runs: tuple[dict[int, list[float]], dict[int, list[float]]] = (defaultdict(list), defaultdict(list))
    meetings = 0
    for other in b:
        one = first.get((other.round, other.meeting))
        if one is None:
            continue
        meetings += 1
        level = (_time(one) + _time(other)) / 2
        for side, block in zip(runs, (one, other), strict=True):
            side[block.process].extend(math.log(run) - level for run in counted(block))
    slow = [[_p99(one) for one in side.values() if len(one) >= LEAST_RUNS_FOR_P99] for side in runs]
    if any(len(side) != len(of) for side, of in zip(slow, runs, strict=True)):
        return None
    slow_a, slow_b = slow
    return _apart(slow_a, slow_b, meetings)


def _apart(a: Sequence[float], b: Sequence[float], meetings: int) -> Difference | None:
    """Take each side's scores as its own: the difference of the two means."""
    found = _welch([-one for one in a], b, meetings)
    if found is None:
        return None
    middle = statistics.fmean(b) - statistics.fmean(a)
    return Difference(middle, found.error, found.freedom, found.processes, meetings)


def _p99(runs: Sequence[float]) -> float:
    return sorted(runs)[math.ceil(len(runs) * 0.99) - 1]


def _time(block: Block) -> float:
    return math.log(statistics.median(counted(block)))
