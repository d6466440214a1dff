"""Compare two benchmarks: what changed, and whether one of the candidates became slower.

Candidates of one benchmark share its machine and its hour. Two benchmarks share neither, so a time is not judged
against a time: what is compared is the ratio of two candidates, before and now. The logarithms of the two ratios are
subtracted, their variances added (Welch and Satterthwaite), and the rule for verdicts is the same as within a
benchmark.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

from epkit.benchmark.audit.comparability import Mismatch, mismatches
from epkit.benchmark.audit.consistency import check_usable
from epkit.benchmark.document import Benchmark, Block, Candidate, Estimate, Measured, Verdict
from epkit.benchmark.labels import labels
from epkit.benchmark.statistics import student
from epkit.benchmark.statistics.differences import Difference, combine_errors, difference, pair_blocks
from epkit.benchmark.statistics.quantiles import pooled_runs
from epkit.benchmark.statistics.verdicts import CONFIDENCE, blocks_by_candidate, corrected_level, verdict

SCHEMA = "epkit.bench.diff/1"


@dataclass(frozen=True, slots=True)
class Typical:
    """The typical time of a candidate: the mean of its processes' medians, and its interval at 95 %."""

    value_s: float
    low_s: float | None
    """None where there is one process only."""
    high_s: float | None


@dataclass(frozen=True, slots=True)
class Times:
    """The times of one candidate on one case. Not judged: the drift of the machine is not in the intervals."""

    case: str
    target: str
    before: Typical
    now: Typical


@dataclass(frozen=True, slots=True)
class Change:
    """The ratio of two candidates, before and now: b's time as a multiple of a's."""

    case: str
    a: str
    b: str
    before: Estimate
    now: Estimate
    change: Estimate
    """`now` as a multiple of `before`: above 1, b is slower relative to a than it was."""
    floor: float
    """The minimum detectable change, as a share: found in 9 of 10 cases."""
    verdict: Verdict | None
    """What b became, relative to a; None where the machine may have changed instead, so that this is not judged."""
    counts: bool
    """Whether `a` is the first candidate, which the others are compared with."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed from one benchmark to the other."""

    differs: tuple[Mismatch, ...]
    """What is not the same in the two, and what cannot be compared for that reason."""
    lost: tuple[str, ...] = ()
    """The candidates that were measured before and fail now, or compute different outputs."""
    missing: tuple[str, ...] = ()
    """What is in one of the two only, in words."""
    changes: tuple[Change, ...] = ()
    times: tuple[Times, ...] = ()
    level: float | None = None
    """The confidence of each interval of a change, so that all of them hold together in 95 of 100 cases."""

    @property
    def comparable(self) -> bool:
        """Whether anything could be compared."""
        return bool(self.changes or self.times)

    @property
    def regressions(self) -> Sequence[Change]:
        """The candidates that became slower relative to the first."""
        return [change for change in self.changes if change.counts and change.verdict == "slower"]

    @property
    def exit_code(self) -> int:
        """1 when a candidate became slower relative to the first, or was lost; 2 when nothing is comparable; else 0."""
        if self.regressions or self.lost:
            return 1
        return 0 if self.comparable else 2

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {"schema": SCHEMA, **asdict(self), "regression": bool(self.regressions or self.lost)}


def changes(before: Benchmark, now: Benchmark) -> Changes:
    """Compare two benchmarks. Raises ConfigError for one that is damaged."""
    for benchmark, which in ((before, "first"), (now, "second")):
        check_usable(benchmark, f"the {which} document", "FILE")
    found = tuple(mismatches(before.measured, now.measured))
    forbidden = {mismatch.forbids for mismatch in found}
    if "everything" in forbidden:
        return Changes(found)
    sides = _Side(before.measured), _Side(now.measured)
    cases = [name for name, digest in sides[1].digests.items() if sides[0].digests.get(name) == digest]
    names = [name for name in sides[1].ok if name in sides[0].ok]
    compared = [(case, a, b) for case in cases for a, b in combinations(names, 2)]
    level = corrected_level(len(compared))
    effect = max(before.measured.request.smallest_effect, now.measured.request.smallest_effect)
    changed = []
    for case, a, b in compared:
        first, second = (side.difference(case, a, b) for side in sides)
        if first is not None and second is not None:
            change = subtract(first, second)
            estimate, floor = change.estimate(level), change.floor(level)
            judged = None if forbidden & {"times", "verdicts"} else verdict(estimate, floor, effect)
            estimates = first.estimate(level), second.estimate(level), estimate
            changed.append(Change(case, a, b, *estimates, floor, judged, counts=a == names[0]))
    times = () if "times" in forbidden else tuple(_times(*sides, cases, names))
    lost, missing = tuple(_lost(before.measured, now.measured)), tuple(_missing(before.measured, now.measured))
    return Changes(found, lost, missing, tuple(changed), times, level)


def subtract(before: Difference, now: Difference) -> Difference:
    """Return the difference of two differences of independent benchmarks, and how well that is known."""
    error, freedom = combine_errors([(each.error**2, each.freedom) for each in (before, now)])
    processes, pairs = min(before.processes, now.processes), min(before.pairs, now.pairs)
    return Difference(now.log_ratio - before.log_ratio, error, freedom, processes, pairs)


def _times(before: _Side, now: _Side, cases: Sequence[str], names: Sequence[str]) -> Iterator[Times]:
    for case in cases:
        for name in names:
            first, second = before.typical(case, name), now.typical(case, name)
            if first is not None and second is not None:
                yield Times(case, name, first, second)


class _Side:
    """One of the two benchmarks, by the names of what is in it."""

    def __init__(self, measured: Measured) -> None:
        self.digests = {case.name: case.inputs_sha256 for case in measured.cases}
        self._cases = {case.name: place for place, case in enumerate(measured.cases)}
        candidates = enumerate(zip(labels(measured.candidates), measured.candidates, strict=True))
        self.ok = {name: place for place, (name, candidate) in candidates if candidate.status == "ok"}
        self._blocks = blocks_by_candidate(measured.blocks, measured.processes)

    def difference(self, case: str, a: str, b: str) -> Difference | None:
        return difference(pair_blocks(self._of(case, a), self._of(case, b)))

    def typical(self, case: str, name: str) -> Typical | None:
        by_process: dict[int, list[Block]] = {}
        for block in self._of(case, name):
            by_process.setdefault(block.process, []).append(block)
        logs = [math.log(statistics.median(pooled_runs(blocks))) for blocks in by_process.values()]
        if not logs:
            return None
        middle = statistics.fmean(logs)
        if len(logs) < 2:
            return Typical(student.ratio(middle), None, None)
        half = student.quantile((1 + CONFIDENCE) / 2, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
        return Typical(*map(student.ratio, (middle, middle - half, middle + half)))

    def _of(self, case: str, name: str) -> Sequence[Block]:
        return self._blocks.get((self._cases[case], self.ok[name]), ())


def _by_label(measured: Measured) -> Mapping[str, Candidate]:
    return dict(zip(labels(measured.candidates), measured.candidates, strict=True))


def _lost(before: Measured, now: Measured) -> Iterator[str]:
    rows = _by_label(now)
    for name, candidate in _by_label(before).items():
        row = rows.get(name)
        if candidate.status == "ok" and row is not None and row.status in ("failed", "differs"):
            yield f"{name} was measured before; now it {row.status}: {row.reason}"


def _missing(before: Measured, now: Measured) -> Iterator[str]:
    """Name what cannot be compared because it is in one of the two only."""
    first, second = _by_label(before), _by_label(now)
    for name in {**first, **second}:
        sides = [side[name].status if name in side else "not there" for side in (first, second)]
        if sides != ["ok", "ok"]:
            yield f"{name} was {sides[0]} before and is {sides[1]} now"
    cases = [[case.name for case in side.cases] for side in (before, now)]
    for name in dict.fromkeys([*cases[0], *cases[1]]):
        if name not in cases[0] or name not in cases[1]:
            yield f"{name or 'the one case without a name'} was measured {'before' if name in cases[0] else 'now'} only"
