"""Write the changes between two benchmarks as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from epkit.benchmark.audit.comparability import Forbids, Mismatch
from epkit.benchmark.audit.diff import Change, Changes
from epkit.benchmark.document import Estimate, invert

_CONSEQUENCES: Mapping[Forbids, str] = {
    "everything": "nothing is compared",
    "this case": "this case is not compared",
    "times": "times are not compared and no change is judged",
    "verdicts": "they may be why a ratio changed, so no change is judged",
}


def summarize(found: Changes) -> Iterator[str]:
    """Yield a sentence for each candidate that was lost, for what prevents a comparison, and for each change."""
    yield from found.lost
    yield from (_explain(mismatch) for mismatch in found.differs if mismatch.forbids != "nothing")
    yield from found.missing
    yield from map(describe, found.changes)
    if not found.comparable:
        yield "nothing of the two can be compared"


def describe(change: Change) -> str:
    """Write the ratio of two candidates, before and now: "... 9 % slower, 6 to 12"."""
    case = f"{change.case}: " if change.case else ""
    before, now = _ratio(change.before), _ratio(change.now)
    return f"{case}{change.b} relative to {change.a}: {before} before, {now} now: {_judge(change)}"


def _explain(mismatch: Mismatch) -> str:
    consequence = _CONSEQUENCES[mismatch.forbids]
    if mismatch.forbids == "verdicts":
        return f"{mismatch.what}: {mismatch.before} before, {mismatch.now} now: {consequence}"
    return f"{mismatch.what} is not the same ({mismatch.before} before, {mismatch.now} now): {consequence}"


def _ratio(time: Estimate) -> str:
    factor = max(time.ratio, 1 / time.ratio)
    if factor < 1.005:
        return "as fast"
    return f"{factor:.3g}x {'slower' if time.ratio > 1 else 'faster'}"


def _judge(change: Change) -> str:
    match change.verdict:
        case "slower":
            return _gain(change.change, "slower")
        case "faster":
            return _gain(invert(change.change), "faster")
        case "same":
            return f"the same, {_between(change.change)}"
        case "undecided":
            floor = _percent(1 + change.floor)
            return f"undecided, {_between(change.change)} (minimum detectable change: {floor} %)"
    return f"not judged, {_between(change.change)}"


def _gain(change: Estimate, word: str) -> str:
    return f"{_percent(change.ratio)} % {word}, {_percent(change.low)} to {_percent(change.high)}"


def _between(change: Estimate) -> str:
    return f"between {_signed(change.low)} and {_signed(change.high)}"


def _signed(ratio: float) -> str:
    return f"{_percent(ratio)} % slower" if ratio >= 1 else f"{_percent(1 / ratio)} % faster"


def _percent(ratio: float) -> str:
    percent = (ratio - 1) * 100
    return f"{percent:.1f}" if percent < 9.95 else f"{percent:.0f}"
