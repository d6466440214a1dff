"""What changed between two benchmarks, and what of it can be said?

What stands side by side in one benchmark shares its machine and its hour. Two benchmarks share neither, so a time is
not judged against a time: what is compared is how two candidates stand beside each other, before and now. The
logarithms of the two ratios are subtracted, their variances added (Welch and Satterthwaite), and the rule for verdicts
is the same as within a benchmark.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

from epkit.benchmark.audit.comparability import Differs, differs
from epkit.benchmark.audit.consistency import unusable
from epkit.benchmark.document import Benchmark, Block, Candidate, Estimate, Measured, Verdict
from epkit.benchmark.statistics import student
from epkit.benchmark.statistics.differences import Difference, difference, pairs
from epkit.benchmark.statistics.quantiles import pooled
from epkit.benchmark.statistics.verdicts import CONFIDENCE, by_candidate, verdict
from epkit.errors import ConfigError

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
    """What one candidate took on one case. Not judged: how the machine itself drifts is not in the intervals."""

    case: str
    target: str
    before: Typical
    now: Typical


@dataclass(frozen=True, slots=True)
class Change:
    """How `b` stands beside `a`, before and now; each is b's time as a multiple of a's."""

    case: str
    a: str
    b: str
    before: Estimate
    now: Estimate
    change: Estimate
    """`now` as a multiple of `before`: above 1, b is slower beside a than it was."""
    floor: float
    """The smallest change that would have been found in 9 of 10 cases, as a share."""
    verdict: Verdict | None
    """What b became, beside a; None where it may be the machine that changed, and this is not judged."""
    counts: bool
    """Whether `a` is the first candidate, which the others are held against."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed from one benchmark to the other."""

    differs: tuple[Differs, ...]
    """What is not the same about the two, and what cannot be compared for that reason."""
    lost: tuple[str, ...]
    """Which candidates were measured before and fail now, or compute something else."""
    missing: tuple[str, ...]
    """What is in one of the two only, in words."""
    changes: tuple[Change, ...]
    times: tuple[Times, ...]
    level: float | None
    """The confidence of each interval of a change, so that all of them hold together in 95 of 100 cases."""

    @property
    def comparable(self) -> bool:
        """Whether anything could be compared."""
        return bool(self.changes or self.times)

    @property
    def regressions(self) -> Sequence[Change]:
        """The candidates that became slower beside the first."""
        return [one for one in self.changes if one.counts and one.verdict == "slower"]

    @property
    def exit_code(self) -> int:
        """1 when a candidate became slower beside the first, or was lost; 2 when nothing could be compared; else 0."""
        if self.regressions or self.lost:
            return 1
        return 0 if self.comparable else 2

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        return {"schema": SCHEMA, **asdict(self), "regression": bool(self.regressions or self.lost)}


def changes(before: Benchmark, now: Benchmark) -> Changes:
    """Compare two benchmarks. Raises ConfigError for one that is damaged."""
    for benchmark, which in ((before, "first"), (now, "second")):
        wrong = unusable(benchmark)
        if wrong:
            told = f"{wrong[0].path} is {wrong[0].said}, where there should be: {wrong[0].found}"
            raise ConfigError(
                f"the {which} document is damaged: {told}", hint="epkit bench verify FILE names all of it"
            )
    found = tuple(differs(before.measured, now.measured))
    lost = tuple(_lost(before.measured, now.measured))
    if any(one.forbids == "everything" for one in found):
        return Changes(found, (), (), (), (), None)
    sides = _Side(before.measured), _Side(now.measured)
    same_machine = not any(one.forbids == "times" for one in found)
    judged = same_machine and not any(one.forbids == "verdicts" for one in found)
    cases = [name for name, digest in sides[1].digests.items() if sides[0].digests.get(name) == digest]
    names = [name for name in sides[1].ok if name in sides[0].ok]
    couples = [(case, a, b) for case in cases for a, b in combinations(names, 2)]
    level = 1 - (1 - CONFIDENCE) / max(1, len(couples))
    effect = max(before.measured.request.smallest_effect, now.measured.request.smallest_effect)
    changed = []
    for case, a, b in couples:
        first, second = (one.difference(case, a, b) for one in sides)
        if first is not None and second is not None:
            both = subtracted(first, second)
            change, floor = both.estimate(level), both.floor(level)
            said = verdict(change, floor, effect) if judged else None
            estimates = first.estimate(level), second.estimate(level), change
            changed.append(Change(case, a, b, *estimates, floor, said, counts=a == names[0]))
    times = _times(*sides, cases, names) if same_machine else ()
    missing = tuple(_missing(before.measured, now.measured))
    return Changes(found, lost, missing, tuple(changed), tuple(times), level)


def subtracted(before: Difference, now: Difference) -> Difference:
    """Return the difference of two differences of independent benchmarks, and how well that is known."""
    parts = [(one.error**2, one.freedom) for one in (before, now)]
    variance = math.fsum(part for part, _ in parts)
    spread = math.fsum(part * part / freedom for part, freedom in parts)
    return Difference(
        now.log_ratio - before.log_ratio,
        math.sqrt(variance),
        variance * variance / spread if spread > 0 else before.freedom + now.freedom,
        min(before.processes, now.processes),
        min(before.meetings, now.meetings),
    )


def _times(before: _Side, now: _Side, cases: Sequence[str], names: Sequence[str]) -> Iterator[Times]:
    for case in cases:
        for name in names:
            first, second = before.typical(case, name), now.typical(case, name)
            if first is not None and second is not None:
                yield Times(case, name, first, second)


class _Side:
    """One of the two benchmarks, by the names of what is in it."""

    def __init__(self, measured: Measured) -> None:
        self.digests = {one.name: one.inputs_sha256 for one in measured.cases}
        self._places = {one.name: place for place, one in enumerate(measured.cases)}
        named = list(enumerate(labels(measured.candidates)))
        self.ok = {name: place for place, name in named if measured.candidates[place].status == "ok"}
        self._blocks = by_candidate(measured.blocks, measured.processes)

    def difference(self, case: str, a: str, b: str) -> Difference | None:
        return difference(pairs(self._of(case, a), self._of(case, b)))

    def typical(self, case: str, name: str) -> Typical | None:
        by_process: dict[int, list[Block]] = {}
        for one in self._of(case, name):
            by_process.setdefault(one.process, []).append(one)
        logs = [math.log(statistics.median(pooled(its))) for its in by_process.values()]
        if not logs:
            return None
        middle = statistics.fmean(logs)
        if len(logs) < 2:
            return Typical(student.ratio(middle), None, None)
        half = student.quantile((1 + CONFIDENCE) / 2, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
        return Typical(*map(student.ratio, (middle, middle - half, middle + half)))

    def _of(self, case: str, name: str) -> Sequence[Block]:
        return self._blocks.get((self._places[case], self.ok[name]), ())


def labels(candidates: Sequence[Candidate]) -> Sequence[str]:
    """Name each candidate once: the second one of the same target is "cpu (2)"."""
    found: list[str] = []
    seen: dict[str, int] = {}
    for one in candidates:
        seen[one.target] = seen.get(one.target, 0) + 1
        found.append(one.target if seen[one.target] == 1 else f"{one.target} ({seen[one.target]})")
    return found


def _by_label(measured: Measured) -> Mapping[str, Candidate]:
    return dict(zip(labels(measured.candidates), measured.candidates, strict=True))


def _lost(before: Measured, now: Measured) -> Iterator[str]:
    rows = _by_label(now)
    for name, one in _by_label(before).items():
        row = rows.get(name)
        if one.status == "ok" and row is not None and row.status in ("failed", "differs"):
            yield f"{name} was measured before; now it {row.status}: {row.reason}"


def _missing(before: Measured, now: Measured) -> Iterator[str]:
    """Say what cannot be compared because it is in one of the two only."""
    first, second = _by_label(before), _by_label(now)
    for name in {**first, **second}:
        sides = [side[name].status if name in side else "not there" for side in (first, second)]
        if sides != ["ok", "ok"]:
            yield f"{name} was {sides[0]} before and is {sides[1]} now"
    cases = [[one.name for one in side.cases] for side in (before, now)]
    for name in dict.fromkeys([*cases[0], *cases[1]]):
        if name not in cases[0] or name not in cases[1]:
            yield f"{name or 'the one case without a name'} was measured {'before' if name in cases[0] else 'now'} only"
